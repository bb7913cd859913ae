package pipeline

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"falaj/internal/data"
	"falaj/internal/features"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/lineage"
	"falaj/internal/monitoring"
	"falaj/internal/registry"
	"falaj/internal/store"
)

// clear lays a training set out in a private room in memory, for the training to read.
func (s *Service) clear(ctx context.Context, project string, set features.TrainingSet) (*data.Room, string, error) {
	o, err := s.blobs.Open(ctx, project, set.Blob.Digest)
	if err != nil {
		return nil, "", err
	}
	defer o.Close()
	room, err := s.Rooms.Room(o.Size())
	if err != nil {
		return nil, "", err
	}
	f, err := room.Create("training.parquet")
	if err == nil {
		_, err = io.Copy(f, o)
		if e := f.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		room.Close()
		return nil, "", fault.Wrap(err, fault.Unavailable, "The training set could not be laid out.", "Free memory or space for the private rooms.")
	}
	return room, room.Path("training.parquet"), nil
}

// keepTrained records how a release was made, its drift reference and its lineage in one change.
func (s *Service) keepTrained(ctx context.Context, t Trained, set features.TrainingSet, rel registry.Release) error {
	ref, err := s.reference(ctx, t.Project, set, rel)
	if err != nil {
		return err
	}
	if err := s.Monitoring.SetReference(ctx, t.Project, rel.Digest, ref); err != nil {
		return err
	}
	now := time.Now().UTC()
	label := fmt.Sprintf("%s@%d", t.Model, t.Version)
	nodes := []lineage.Node{
		{ID: "training_set:" + t.TrainingSet, Kind: lineage.TrainingSet, Label: fmt.Sprintf("%d rows", set.Rows), At: now},
		{ID: "run:" + t.Run, Kind: lineage.Run, Label: "run " + t.Run[:8], At: now},
		{ID: modelNode(t.Model, t.Version), Kind: lineage.Release, Label: label, At: now},
	}
	edges := []lineage.Edge{{From: nodes[0].ID, To: nodes[1].ID, Role: "trained"}, {From: nodes[1].ID, To: nodes[2].ID, Role: "packaged"}}
	for _, p := range set.Pins {
		edges = append(edges, lineage.Edge{From: versionNode(p.Dataset, p.Version), To: nodes[0].ID, Role: "joined"})
	}
	// Last, because its row is what says that all of this was done.
	return s.store.Change(ctx, "lineage.record", runResource(t.Project, t.Pipeline), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := upsertTrained(ctx, tx, t); err != nil {
			return event.Draft{}, err
		}
		tx.After(t)
		return event.Draft{Type: "model.trained", Subject: label, Data: t}, s.Lineage.Record(ctx, t.Project, nodes, edges)
	})
}

// modelNode is the lineage id of a model version: the same spelling as the pages'.
func modelNode(model string, version int64) string {
	return fmt.Sprintf("model_version:%s@%d", model, version)
}

// reference is the training profile of the served features in vector order, with the model's own gain as importance.
// The data stage and monitoring cut columns alike: edges with one count more.
func (s *Service) reference(ctx context.Context, project string, set features.TrainingSet, rel registry.Release) (monitoring.Reference, error) {
	ref := monitoring.Reference{Profile: monitoring.Profile{Rows: set.Rows}}
	if set.Profile == nil {
		return ref, nil
	}
	byName := map[string]data.ColumnProfile{}
	for _, c := range set.Profile.Columns {
		byName[c.Name] = c
	}
	for _, name := range set.Features {
		c := byName[name]
		edges, counts := coarse(c.Edges, c.Counts)
		ref.Profile.Features = append(ref.Profile.Features, monitoring.FeatureProfile{Name: name, Kind: monitoring.Numeric, Edges: edges, Counts: counts, Nulls: c.Nulls + c.NaNs})
	}
	gain, err := s.importance(ctx, project, rel)
	if err != nil {
		return ref, err
	}
	if gain != nil {
		for _, name := range set.Features {
			ref.Importance = append(ref.Importance, gain[name])
		}
	}
	return ref, nil
}

// coarse merges a fine grid to about ten bins: fifty are too many for a window of some thousand rows.
func coarse(edges []float64, counts []int64) ([]float64, []int64) {
	const bins = 10
	if len(edges) == 0 || len(counts) != len(edges)+1 {
		return []float64{}, []int64{sum(counts)}
	}
	step := max(1, (len(edges)+bins-2)/(bins-1))
	var e []float64
	var c []int64
	var acc int64
	for i, n := range counts {
		acc += n
		if i < len(edges) && (i+1)%step == 0 {
			e, c, acc = append(e, edges[i]), append(c, acc), 0
		}
	}
	return e, append(c, acc)
}

func sum(counts []int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// importance is the gain by feature of a tree model; nil where the engine does not know the format: all then weigh alike.
func (s *Service) importance(ctx context.Context, project string, rel registry.Release) (map[string]float64, error) {
	for _, f := range rel.Manifest.Files {
		if !looksLikeTrees(f.Path) || f.Size > 64<<20 {
			continue
		}
		o, err := s.Registry.OpenFile(ctx, project, rel.Digest, f.Path)
		if err != nil {
			return nil, err
		}
		gain, err := s.Importance(o)
		o.Close()
		return gain, err
	}
	return nil, nil
}

func looksLikeTrees(path string) bool {
	return strings.HasSuffix(path, ".lgb") || strings.HasSuffix(path, "model.txt")
}
