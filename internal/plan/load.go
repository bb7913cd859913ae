package plan

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
	"falaj/internal/training"
)

// SourceRef is a file, or a pattern of files, that falaj.yaml names. Files are those found, sorted, with slashes,
// relative to the folder of falaj.yaml.
type SourceRef struct {
	Key   string // path of the key in falaj.yaml, e.g. "datasets.flights.source.csv"
	Role  string // source, sql, runtime, code or tests
	Path  string // as written
	Files []string
	Position
}

// maxSQL is the largest SQL file in bytes.
const maxSQL = 256 << 10

// Load reads file (e.g. "falaj.yaml") in fsys and checks it together with the files it names: each exists inside the
// folder, each dataset and view reads from datasets that there are, and none from itself in the end. fsys should be an
// os.Root's, so that links lead nowhere else. Errors are as in Parse.
func Load(fsys fs.FS, file string, options ...Option) (*Project, []SourceRef, error) {
	data, err := readLimited(fsys, file, MaxFile+1)
	if err != nil {
		return nil, nil, fault.Wrap(err, fault.NotFound, fmt.Sprintf("%s cannot be read.", file), "Run it in the folder of falaj.yaml, or name the file with -f.")
	}
	p, problems := parse(data)
	if len(problems) > 0 {
		return nil, nil, report(file, problems)
	}
	l := &loader{checker: checker{p, &decoder{at: p.at}}, fsys: fsys}
	for _, o := range options {
		o(l)
	}
	l.load()
	if err := report(file, l.d.problems); err != nil {
		return nil, nil, err
	}
	return p, l.refs, nil
}

func readLimited(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

type loader struct {
	checker
	fsys fs.FS
	refs []SourceRef

	elsewhere bool // the data files of sources are not in fsys
}

// Option changes how Load looks at files.
type Option func(*loader)

// SourcesElsewhere is for a server that was sent the project's texts: patterns of data files are checked as words, but
// match nothing there.
func SourcesElsewhere() Option { return func(l *loader) { l.elsewhere = true } }

func (l *loader) load() {
	reads := map[string][]string{}
	for _, n := range sorted(l.p.Datasets) {
		ds, at := l.p.Datasets[n], "datasets."+n
		if s := ds.Source; s != nil {
			for k, patterns := range map[string]Strings{"csv": s.CSV, "parquet": s.Parquet, "json": s.JSON} {
				for i, pattern := range patterns {
					l.glob(l.item(at+".source."+k, i), pattern)
				}
			}
		}
		if ds.Derive != "" {
			if from := l.sql(at+".derive", ds.Derive); from != nil && !slices.Contains(from, "source") {
				l.bad(at+".derive", "%s does not read from the table source.", ds.Derive)
			}
		}
		if ds.SQL != "" {
			reads[n] = l.inputs(at+".sql", ds.SQL)
		}
	}
	if _, cycle := order(reads); cycle != nil {
		l.bad("datasets."+cycle[0]+".sql", "The dataset %s: a cycle.", arrows(cycle))
	}
	for _, n := range sorted(l.p.Features) {
		if v := l.p.Features[n]; v.SQL != "" {
			l.inputs("features."+n+".sql", v.SQL)
		}
	}
	for _, n := range sorted(l.p.Models) {
		m, at := l.p.Models[n], "models."+n
		l.inputs(at+".train.spine", m.Train.Spine)
		l.one(at+".train.runtime", "runtime", m.Train.Runtime)
		for i, c := range m.Train.Code {
			l.one(l.item(at+".train.code", i), "code", c)
		}
		l.command(at+".train.run", "code", m.Train.Run)
		l.command(at+".tests.unit", "tests", m.Tests.Unit)
		if m.Tests.Behaviour != "" {
			l.one(at+".tests.behaviour", "tests", m.Tests.Behaviour)
		}
		if m.Tests.Integration != "" {
			l.one(at+".tests.integration", "tests", m.Tests.Integration)
		}
	}
}

// inside refuses paths that leave the folder. The trailing slash of a folder is let be.
func (l *loader) inside(at, p string) (string, bool) {
	clean := strings.TrimSuffix(p, "/")
	if !fs.ValidPath(clean) || strings.ContainsAny(clean, "\\\x00\n") {
		l.bad(at, "'%s' is no path inside the project's folder: write it with /, without a leading / and without ..", p)
		return "", false
	}
	return clean, true
}

func (l *loader) glob(at, pattern string) {
	p, ok := l.inside(at, pattern)
	if !ok {
		return
	}
	files, err := fs.Glob(l.fsys, p)
	if err != nil {
		l.bad(at, "'%s' is no pattern of files: * stands for any letters but /, ? for one, [a-z] for one of them.", pattern)
		return
	}
	if l.elsewhere {
		return
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		info, err := fs.Stat(l.fsys, f)
		return err != nil || !info.Mode().IsRegular()
	})
	if len(files) == 0 {
		l.bad(at, "No file matches '%s'.", pattern)
		return
	}
	slices.Sort(files)
	l.refs = append(l.refs, SourceRef{at, "source", pattern, files, l.p.at[at]})
}

// one is a single file, or a folder as it is.
func (l *loader) one(at, role, name string) bool {
	p, ok := l.inside(at, name)
	if !ok {
		return false
	}
	if _, err := fs.Stat(l.fsys, p); err != nil {
		l.bad(at, "There is no file '%s'.", name)
		return false
	}
	l.refs = append(l.refs, SourceRef{at, role, name, []string{p}, l.p.at[at]})
	return true
}

// sql reads an SQL file and lists the tables it reads; nil when it cannot be read.
func (l *loader) sql(at, name string) []string {
	if !l.one(at, "sql", name) {
		return nil
	}
	b, err := readLimited(l.fsys, strings.TrimSuffix(name, "/"), maxSQL+1)
	switch {
	case err != nil:
		l.bad(at, "The SQL file '%s' cannot be read.", name)
	case len(b) > maxSQL:
		l.bad(at, "The SQL file '%s' is larger than %d KiB.", name, maxSQL>>10)
	case !validText(b):
		l.bad(at, "The SQL file '%s' is not UTF-8 text.", name)
	default:
		tables := Tables(string(b))
		if tables == nil {
			l.bad(at, "The SQL file '%s' reads from no table.", name)
		}
		return tables
	}
	return nil
}

// inputs are the datasets that an SQL file reads; a table that is none of them is named.
func (l *loader) inputs(at, name string) []string {
	var out []string
	for _, t := range l.sql(at, name) {
		if _, ok := l.p.Datasets[t]; !ok {
			l.bad(at, "%s reads from '%s', which is not under datasets.%s", name, t, suggestion(t, l.p.Datasets))
			continue
		}
		out = append(out, t)
	}
	return out
}

// command refers to the files among a command's words.
func (l *loader) command(at, role, command string) {
	words, err := training.SplitCommand(command)
	if command == "" || err != nil {
		return
	}
	for _, w := range words {
		p := strings.TrimSuffix(w, "/")
		if strings.HasPrefix(w, "-") || !fs.ValidPath(p) || p == "." {
			continue
		}
		if _, err := fs.Stat(l.fsys, p); err == nil {
			l.refs = append(l.refs, SourceRef{at, role, w, []string{p}, l.p.at[at]})
		} else if slices.Contains([]string{".py", ".sh"}, path.Ext(p)) {
			l.bad(at, "The command names '%s', which is not there.", w)
		}
	}
}
