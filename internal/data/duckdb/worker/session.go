package worker

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	engine "github.com/duckdb/duckdb-go/v2"

	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/kernel/fault"
)

// own is the schema of the worker's own tables, out of the way of the names that user SQL sees.
const own = `"_falaj"`

// reserved begins every name that the worker's SQL gives to a column or a table beside those of the user, whose columns
// may be called anything else: v, n, row, source ... No column of a source or of a SELECT may begin with it.
const reserved = "_falaj"

// session is one in-memory database on one connection, confined to dir and the inputs before any user SQL.
type session struct {
	conn   *sql.Conn
	dir    string
	memory int64
	hide   bool // errors quote no values
}

func open(ctx context.Context, dir string, in []string, l duckdb.Limits) (*session, error) {
	spill := filepath.Join(dir, ".spill")
	if err := os.MkdirAll(spill, 0o700); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The scratch folder cannot be written.", "See `falaj doctor`: it may be full.")
	}
	for _, f := range in {
		if _, err := os.Stat(f); err != nil {
			return nil, fault.Wrap(err, fault.Internal, "A file that the data job needs is not there.", "Run it again; if it happens again, report it.")
		}
	}
	connector, err := engine.NewConnector("", nil)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "DuckDB does not start.", "See `falaj doctor`.")
	}
	conn, err := sql.OpenDB(connector).Conn(ctx)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "DuckDB does not start.", "See `falaj doctor`.")
	}
	// DuckDB reads the machine's limits while it opens, and does not survive a refusal there.
	if err := wall(dir, in); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The data engine could not confine itself.", "See `falaj doctor`.")
	}
	s := &session{conn: conn, dir: dir, memory: l.Memory}
	paths := make([]string, len(in))
	for i, p := range in {
		paths[i] = lit(p)
	}
	for _, set := range []string{
		fmt.Sprintf("memory_limit = '%dMiB'", l.Memory>>20),
		fmt.Sprintf("threads = %d", max(1, l.Threads)),
		"temp_directory = " + lit(spill),
		fmt.Sprintf("max_temp_directory_size = '%dMiB'", l.FileBytes>>20),
		"TimeZone = 'UTC'",
		"preserve_insertion_order = true",
		"default_null_order = 'nulls_last'",
		"autoinstall_known_extensions = false",
		"autoload_known_extensions = false",
		"allow_community_extensions = false",
		"allowed_directories = [" + lit(dir) + "]",
		"allowed_paths = [" + strings.Join(paths, ", ") + "]",
		"enable_external_access = false",
		"lock_configuration = true",
	} {
		if err := s.exec(ctx, "SET "+set); err != nil {
			return nil, fault.Wrap(err, fault.Internal, "DuckDB refused a safety setting.", "Report this error.")
		}
	}
	return s, s.exec(ctx, "CREATE SCHEMA "+own)
}

func (s *session) exec(ctx context.Context, q string) error {
	_, err := s.conn.ExecContext(ctx, q)
	return err
}

// ints scans the one row of q, all whole numbers.
func (s *session) ints(ctx context.Context, q string) ([]int64, error) {
	row, err := s.row(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]int64, len(row))
	for i, v := range row {
		n, ok := v.(int64)
		if !ok && v != nil {
			return nil, fmt.Errorf("column %d is %T, not a whole number", i, v)
		}
		out[i] = n
	}
	return out, nil
}

func (s *session) int(ctx context.Context, q string) (int64, error) {
	n, err := s.ints(ctx, q)
	if err != nil {
		return 0, err
	}
	return n[0], nil
}

// row scans the one row of q.
func (s *session) row(ctx context.Context, q string) ([]any, error) {
	var out []any
	err := s.each(ctx, q, func(row []any) { out = slices.Clone(row) })
	if err == nil && out == nil {
		err = sql.ErrNoRows
	}
	return out, err
}

// each calls fn with every row of q; the slice is reused.
func (s *session) each(ctx context.Context, q string, fn func([]any)) error {
	rows, err := s.conn.QueryContext(ctx, q)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	vals, ptrs := make([]any, len(names)), make([]any, len(names))
	for i := range vals {
		ptrs[i] = &vals[i]
	}
	for rows.Next() {
		if err := rows.Scan(ptrs...); err != nil {
			return err
		}
		fn(vals)
	}
	return rows.Err()
}

// describe gives the columns of a query or, as `FROM x`, of a table.
func (s *session) describe(ctx context.Context, q string) ([]data.Column, error) {
	var out []data.Column
	err := s.each(ctx, "DESCRIBE\n"+q, func(row []any) {
		out = append(out, data.Column{Name: fmt.Sprint(row[0]), Type: fmt.Sprint(row[1])})
	})
	return out, err
}

// inputs makes the tables that user SQL may name.
func (s *session) inputs(ctx context.Context, in map[string]data.Input) error {
	for name, t := range in {
		var q string
		if len(t.Files) > 0 {
			q = "CREATE VIEW " + ident(name) + " AS SELECT * FROM " + parquet(t.Files)
		} else {
			if len(t.Columns) == 0 {
				return fault.Newf(fault.Conflict, "%s has no version yet, so its columns are not known.", name)
			}
			defs := make([]string, len(t.Columns))
			for i, c := range t.Columns {
				defs[i] = ident(c.Name) + " " + c.Type
			}
			q = "CREATE TABLE " + ident(name) + " (" + strings.Join(defs, ", ") + ")"
		}
		if err := s.exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// one refuses text that is not exactly one SELECT and returns its syntax tree.
func (s *session) one(ctx context.Context, q, ref string) (json.RawMessage, error) {
	var text string
	if err := s.conn.QueryRowContext(ctx, "SELECT CAST(json_serialize_sql(CAST($1 AS VARCHAR)) AS VARCHAR)", q).Scan(&text); err != nil {
		return nil, s.explain(err, ref)
	}
	var tree struct {
		Error      bool              `json:"error"`
		Message    string            `json:"error_message"`
		Type       string            `json:"error_type"`
		Position   string            `json:"position"`
		Statements []json.RawMessage `json:"statements"`
	}
	if err := json.Unmarshal([]byte(text), &tree); err != nil {
		return nil, err
	}
	what := orWord(ref)
	switch {
	case tree.Error && tree.Type == "parser":
		var pos int
		_, _ = fmt.Sscan(tree.Position, &pos)
		line := 1 + strings.Count(q[:min(pos, len(q))], "\n")
		return nil, fault.New(fault.Invalid, fmt.Sprintf("%s, line %d: %s.", what, line, tree.Message), "Correct the SQL; it is DuckDB's dialect.").At("sql")
	case tree.Error:
		return nil, fault.New(fault.Invalid, what+" is not a SELECT, and a transform is exactly one SELECT.", "Write it as one SELECT (WITH ... SELECT is one too; PIVOT as a statement is not).").At("sql")
	case len(tree.Statements) == 0:
		return nil, fault.New(fault.Invalid, what+" is empty.", "Write one SELECT.").At("sql")
	case len(tree.Statements) > 1:
		return nil, fault.New(fault.Invalid, fmt.Sprintf("%s has %d statements, and a transform is exactly one SELECT.", what, len(tree.Statements)), "Join them into one SELECT, with WITH for the steps between.").At("sql")
	}
	return tree.Statements[0], nil
}

// materialize runs one checked SELECT into table and returns its columns, narrowed to what a dataset holds.
func (s *session) materialize(ctx context.Context, q, ref, table string) ([]data.Column, error) {
	if _, err := s.one(ctx, q, ref); err != nil {
		return nil, err
	}
	cols, err := s.describe(ctx, q)
	if err != nil {
		return nil, s.explain(shift(err, 1), ref)
	}
	if err := distinctNames(cols, ref); err != nil {
		return nil, err
	}
	// Text that is one SELECT by itself is the body of this one statement too, comments and semicolon included.
	if err := s.exec(ctx, "CREATE TABLE "+table+" AS\n"+q); err != nil {
		return nil, s.explain(shift(err, 1), ref)
	}
	return cols, nil
}

func distinctNames(cols []data.Column, ref string) error {
	seen := map[string]bool{}
	for _, c := range cols {
		low := strings.ToLower(c.Name)
		if seen[low] {
			return fault.New(fault.Invalid, fmt.Sprintf("%s gives two columns called %s.", orWord(ref), c.Name), "Name one of them otherwise with AS.").At("sql")
		}
		if notName(c.Name) {
			return fault.New(fault.Invalid, fmt.Sprintf("%s gives a column called %q, which cannot be stored.", orWord(ref), c.Name), "Name it otherwise with AS.").At("sql")
		}
		seen[low] = true
	}
	return nil
}

func orWord(ref string) string {
	if ref == "" {
		return "The SQL"
	}
	return ref
}

// ident and lit quote a name and a text for SQL.
func ident(name string) string { return data.Ident(name) }
func lit(text string) string   { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// place gives the expression of a row's place in a table, from 0. A column called rowid hides DuckDB's own, and then the
// table is made anew with a number beside its columns.
func (s *session) place(ctx context.Context, table string, cols []data.Column) (string, error) {
	if _, ok := find(cols, "rowid"); !ok {
		return "rowid", nil
	}
	return "_falaj_place", s.exec(ctx, fmt.Sprintf("CREATE OR REPLACE TABLE %s AS SELECT *, row_number() OVER () - 1 AS _falaj_place FROM %s", table, table))
}

func idents(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = ident(n)
	}
	return strings.Join(out, ", ")
}

// parquet is the table expression over files of equal columns, in order.
func parquet(files []string) string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = lit(f)
	}
	return "read_parquet([" + strings.Join(out, ", ") + "])"
}

// write copies a query into a Parquet file; the bytes depend on the rows and their order only.
func (s *session) write(ctx context.Context, q, path string) error {
	return s.exec(ctx, "COPY ("+q+") TO "+lit(path)+" (FORMAT parquet, COMPRESSION zstd)")
}
