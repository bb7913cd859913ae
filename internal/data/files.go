package data

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// Laid are dataset versions laid out in clear in a private room, ready for an engine. Room.Close wipes them.
type Laid struct {
	Room   *Room
	Inputs map[string]Input // by dataset
	Pins   []Parent         // which versions they are, by dataset name
	Masked bool             // some of them have masked columns, so that engines must quote no values (TransformJob.Hide)
}

// Paths are the Parquet files of one dataset of the room, in order.
func (l *Laid) Paths(dataset string) []string { return l.Inputs[dataset].Files }

// Close wipes the files.
func (l *Laid) Close() error { return l.Room.Close() }

// Files lays one version out; n 0 is the latest. Its snapshot is planned, and must name the files of the version.
func (s *Service) Files(ctx context.Context, project, dataset string, n int64) (*Laid, error) {
	return s.lay(ctx, project, map[string]int64{dataset: n})
}

// Tables lays out the datasets that the SELECTs name, the latest version of each unless pins says another.
func (s *Service) Tables(ctx context.Context, project string, selects []string, pins map[string]int64) (*Laid, error) {
	want, err := s.named(ctx, project, selects, pins)
	if err != nil {
		return nil, err
	}
	return s.lay(ctx, project, want)
}

// word finds what may be a name in SQL.
var word = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// schemas gives the datasets whose names stand in some of the texts, as empty tables of their versions' columns, and
// those among them that have no version yet.
func (s *Service) schemas(ctx context.Context, project string, texts []string, pins map[string]int64) (in map[string]Input, versions map[string]*Version, without []string, err error) {
	words := map[string]bool{}
	for _, t := range texts {
		for _, w := range word.FindAllString(t, -1) {
			words[strings.ToLower(w)] = true
		}
	}
	in, versions = map[string]Input{}, map[string]*Version{}
	err = s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) error {
		defs, err := listDefinitions(ctx, q, project)
		if err != nil {
			return err
		}
		for _, d := range defs {
			name := d.spec.Name
			if !words[name] {
				continue
			}
			var v *Version
			if n := pins[name]; n > 0 {
				v, err = versionByN(ctx, q, box, project, name, n)
			} else {
				v, err = latest(ctx, q, box, project, name)
			}
			if err != nil {
				return err
			}
			if v == nil {
				without = append(without, name)
				continue
			}
			in[name], versions[name] = Input{Columns: v.Columns}, v
		}
		return nil
	})
	return in, versions, without, err
}

// bind binds one SELECT over the datasets of the project.
func (s *Service) bind(ctx context.Context, room *Room, sql, ref string, in map[string]Input, without []string) (*ColumnsResult, error) {
	res, err := s.engine.Columns(ctx, ColumnsJob{Dir: room.Dir, SQL: sql, Ref: ref, Inputs: in})
	if err != nil && len(without) > 0 && fault.Is(err, fault.Invalid) {
		return nil, fault.Wrap(err, fault.Conflict, fmt.Sprintf("%s names dataset %s, which has no version yet.", orSQL(ref), strings.Join(without, " and ")), "Make its version first: `falaj run`.")
	}
	return res, err
}

func orSQL(ref string) string {
	if ref == "" {
		return "The SQL"
	}
	return ref
}

func (s *Service) named(ctx context.Context, project string, selects []string, pins map[string]int64) (map[string]int64, error) {
	in, versions, without, err := s.schemas(ctx, project, selects, pins)
	if err != nil {
		return nil, err
	}
	room, err := s.engine.Room(0)
	if err != nil {
		return nil, err
	}
	defer room.Close()
	want := map[string]int64{}
	for _, sel := range selects {
		res, err := s.bind(ctx, room, sel, "", in, without)
		if err != nil {
			return nil, err
		}
		for _, t := range res.Tables {
			want[t] = versions[t].N
		}
	}
	return want, nil
}

func (s *Service) lay(ctx context.Context, project string, want map[string]int64) (*Laid, error) {
	out := &Laid{Inputs: map[string]Input{}}
	versions := map[string]*Version{}
	var need int64
	for _, name := range slices.Sorted(maps.Keys(want)) {
		err := s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) (err error) {
			var v *Version
			if n := want[name]; n > 0 {
				v, err = versionByN(ctx, q, box, project, name, n)
			} else {
				v, err = latest(ctx, q, box, project, name)
			}
			if err == nil && v == nil {
				err = fault.New(fault.NotFound, fmt.Sprintf("Dataset %s of project %s has no such version.", name, project), "`falaj run` makes versions; the dataset's page lists them.")
			}
			versions[name] = v
			if err == nil {
				var d definition
				d, err = getDefinition(ctx, q, project, name)
				out.Masked = out.Masked || len(d.spec.masks()) > 0
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		v := versions[name]
		out.Pins = append(out.Pins, Parent{Dataset: name, N: v.N, ID: v.ID, Digest: v.Digest})
		for _, f := range v.Files {
			need += f.Size
		}
	}
	// As much again for what is computed from them.
	room, err := s.engine.Room(2*need + 16<<20)
	if err != nil {
		return nil, err
	}
	out.Room = room
	for name, v := range versions {
		in := Input{Columns: v.Columns}
		planned, err := s.tables.Plan(ctx, project, v.Table, v.Snapshot)
		if err == nil && !slices.Equal(planned, sortedDigests(v.Files)) {
			err = fault.New(fault.Internal, fmt.Sprintf("The table of %s/%d does not hold the files of that version; it is not read.", name, v.N), "Run `falaj audit verify`, and restore catalog.db from the backup that belongs to falaj.db.")
		}
		for i, f := range v.Files {
			if err != nil {
				break
			}
			var path string
			path, err = s.layOut(ctx, project, f.Digest, room, fmt.Sprintf("%s-%d-%d.parquet", name, v.N, i))
			in.Files = append(in.Files, path)
		}
		if err != nil {
			room.Close()
			return nil, err
		}
		out.Inputs[name] = in
	}
	return out, nil
}

func sortedDigests(files []File) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.Digest
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Preview shows the first rows of a version, masked; n 0 is the latest.
func (s *Service) Preview(ctx context.Context, project, dataset string, n int64, limit int) (*Rows, error) {
	d, err := s.Dataset(ctx, project, dataset)
	if err != nil {
		return nil, err
	}
	laid, err := s.Files(ctx, project, dataset, n)
	if err != nil {
		return nil, err
	}
	defer laid.Close()
	rows, err := s.engine.Query(ctx, QueryJob{Dir: laid.Room.Dir, SQL: "SELECT * FROM " + dataset, Inputs: laid.Inputs, Limit: limit, Hide: laid.Masked})
	if err != nil {
		return nil, err
	}
	return rows, s.maskRows(project, d.Spec.masks(), rows)
}

// Query runs one SELECT over the latest versions and shows its first rows. A result that is made of a masked column is
// masked too. BUG: a WHERE on a masked column is allowed, so that its values can be guessed one by one.
func (s *Service) Query(ctx context.Context, project, sql string, limit int) (*Rows, error) {
	in, _, without, err := s.schemas(ctx, project, []string{sql}, nil)
	if err != nil {
		return nil, err
	}
	room, err := s.engine.Room(0)
	if err != nil {
		return nil, err
	}
	defer room.Close()
	bound, err := s.bind(ctx, room, sql, "", in, without)
	if err != nil {
		return nil, err
	}
	masks := map[string]string{}
	want := map[string]int64{}
	for _, t := range bound.Tables {
		want[t] = 0
		d, err := s.Dataset(ctx, project, t)
		if err != nil {
			return nil, err
		}
		for col, mask := range d.Spec.masks() {
			for out, from := range bound.From {
				if slices.ContainsFunc(from, func(f string) bool { return strings.EqualFold(f, t+"."+col) }) {
					masks[strings.ToLower(out)] = mask
				}
			}
		}
	}
	laid, err := s.lay(ctx, project, want)
	if err != nil {
		return nil, err
	}
	defer laid.Close()
	rows, err := s.engine.Query(ctx, QueryJob{Dir: laid.Room.Dir, SQL: sql, Inputs: laid.Inputs, Limit: limit, Hide: laid.Masked})
	if err != nil {
		return nil, err
	}
	return rows, s.maskRows(project, masks, rows)
}

func (s *Service) maskRows(project string, masks map[string]string, rows *Rows) (err error) {
	for i := range rows.Rows {
		if rows.Rows[i], err = s.maskObject(project, masks, rows.Rows[i]); err != nil {
			return fault.Wrap(err, fault.Internal, "A row could not be masked, so it is not shown.", "Report this error.")
		}
	}
	return nil
}
