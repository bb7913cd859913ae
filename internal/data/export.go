package data

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// Export is a dataset version as it leaves: one Parquet file without the masked columns. Close wipes the copy.
type Export struct {
	Dataset string   `json:"dataset"`
	N       int64    `json:"version"`
	Digest  string   `json:"digest"` // of the version
	Rows    int64    `json:"rows"`
	Columns []Column `json:"columns"`
	LeftOut []string `json:"left_out"` // masked columns, which do not leave
	Region  string   `json:"region"`   // where it goes, as the caller says
	SHA256  string   `json:"sha256"`   // of the file
	Bytes   int64    `json:"bytes"`

	file *os.File
	room *Laid
}

// Read gives the file.
func (e *Export) Read(p []byte) (int, error) { return e.file.Read(p) }

// Close wipes the decrypted copy.
func (e *Export) Close() error {
	if e.file != nil {
		e.file.Close()
	}
	return e.room.Close()
}

// Export hands a version out, n 0 the latest: the only way by which a table leaves. The place it goes to has a region; one
// that the project does not allow, or none, is refused. It is recorded before the first byte leaves.
func (s *Service) Export(ctx context.Context, project, dataset string, n int64, region string) (*Export, error) {
	to := resource(project, dataset).In(region)
	v, err := s.Version(ctx, project, dataset, n)
	if err != nil {
		return nil, err
	}
	d, err := s.Dataset(ctx, project, dataset)
	if err != nil {
		return nil, err
	}
	out := &Export{Dataset: dataset, N: v.N, Digest: v.Digest, Region: region, LeftOut: slices.Sorted(maps.Keys(d.Spec.masks()))}
	var keep []string
	for _, c := range v.Columns {
		if !slices.Contains(out.LeftOut, strings.ToLower(c.Name)) {
			keep, out.Columns = append(keep, Ident(c.Name)), append(out.Columns, c)
		}
	}
	if len(keep) == 0 {
		return nil, fault.New(fault.Refused, fmt.Sprintf("Every column of dataset %s is masked, so nothing of it can leave.", dataset), "Look at it on its page.")
	}
	err = s.db.Change(ctx, "dataset.export", to, func(_ context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(out)
		return event.Draft{Type: "dataset.exported", Subject: fmt.Sprintf("%s/%d", dataset, v.N), Data: map[string]any{"dataset": dataset, "n": v.N, "digest": v.Digest, "region": region, "left_out": out.LeftOut}}, nil
	})
	if err != nil {
		return nil, err
	}
	if out.room, err = s.Files(ctx, project, dataset, v.N); err != nil {
		return nil, err
	}
	path := out.room.Room.Path("export.parquet")
	res, err := s.engine.Transform(ctx, TransformJob{Dir: out.room.Room.Dir, SQL: "SELECT " + strings.Join(keep, ", ") + " FROM " + dataset, Ref: "the export", Inputs: out.room.Inputs, Out: path, Order: d.Spec.Key, AsWritten: true, Hide: out.room.Masked})
	if err == nil {
		out.Rows = res.Rows
		out.file, err = os.Open(path)
	}
	if err == nil {
		h := sha256.New()
		if out.Bytes, err = io.Copy(h, out.file); err == nil {
			out.SHA256 = hex.EncodeToString(h.Sum(nil))
			_, err = out.file.Seek(0, io.SeekStart)
		}
	}
	if err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}
