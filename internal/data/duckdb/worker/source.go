package worker

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

// raw is the table that holds the source as its file says: text only for CSV.
const raw = own + ".raw"

// load reads the source file into raw and returns its columns.
func (s *session) load(ctx context.Context, j data.IngestJob) ([]data.Column, error) {
	var q string
	switch j.Format {
	case data.CSV:
		head, err := header(j)
		if err != nil {
			return nil, err
		}
		cols := make([]string, len(head))
		for i, h := range head {
			cols[i] = lit(h) + ": 'VARCHAR'"
		}
		nulls := []string{"''"}
		for _, n := range j.Null {
			nulls = append(nulls, lit(n))
		}
		q = fmt.Sprintf(`read_csv(%s, auto_detect = false, header = true, delim = %s, quote = '"', escape = '"', strict_mode = true, nullstr = [%s], columns = {%s}, max_line_size = 4194304)`,
			lit(j.Path), lit(delim(j)), strings.Join(nulls, ", "), strings.Join(cols, ", "))
	case data.Parquet:
		q = parquet([]string{j.Path})
	case data.JSON:
		q = fmt.Sprintf("read_json(%s, format = 'auto', sample_size = -1, maximum_object_size = 4194304)", lit(j.Path))
	default:
		return nil, fault.Newf(fault.Unsupported, "%s is in format %q; sources are csv (also in a zip), parquet and json.", j.Name, j.Format)
	}
	if err := s.exec(ctx, "CREATE TABLE "+raw+" AS SELECT * FROM "+q); err != nil {
		return nil, s.malformed(err, j)
	}
	cols, err := s.describe(ctx, "FROM "+raw)
	if err != nil {
		return nil, err
	}
	for i, c := range cols { // a Parquet or JSON file may call a column anything
		if notName(c.Name) {
			return nil, fault.New(fault.Invalid, fmt.Sprintf("%s, column %d: %.80q cannot be the name of a column.", j.Name, i+1, c.Name), "Rename it in the file: not empty, on one line, at most 128 bytes, and not beginning with "+reserved+".").At("source")
		}
	}
	return cols, nil
}

// notName says which names a column cannot have.
func notName(name string) bool {
	return name == "" || strings.ContainsAny(name, "\x00\n\r") || len(name) > 128 || strings.HasPrefix(strings.ToLower(name), reserved)
}

func delim(j data.IngestJob) string {
	if j.Delim == "" {
		return ","
	}
	return j.Delim
}

// header reads the names of a CSV file's first record.
func header(j data.IngestJob) ([]string, error) {
	f, err := os.Open(j.Path)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, j.Name+" cannot be opened.", "")
	}
	defer f.Close()
	in := bufio.NewReader(io.LimitReader(f, 1<<20))
	if bom, _ := in.Peek(3); string(bom) == "\xef\xbb\xbf" {
		_, _ = in.Discard(3)
	}
	r := csv.NewReader(in)
	r.Comma = []rune(delim(j))[0]
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, j.Name+" is empty.", "A CSV file starts with a line of column names.").At("source")
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, fmt.Sprintf("%s: its first line is not a line of column names (%v).", j.Name, err), "A CSV file starts with a line of column names.").(*fault.E).At("source")
	}
	seen := map[string]int{}
	for i, h := range head {
		h = strings.TrimSpace(h)
		head[i] = h
		if notName(h) {
			return nil, fault.New(fault.Invalid, fmt.Sprintf("%s, line 1, column %d: %q is not a column name.", j.Name, i+1, h), "A CSV file starts with a line of column names.").At("source")
		}
		if at, ok := seen[strings.ToLower(h)]; ok {
			return nil, fault.New(fault.Invalid, fmt.Sprintf("%s, line 1: columns %d and %d are both called %s.", j.Name, at, i+1, h), "Rename one of them in the file.").At("source")
		}
		seen[strings.ToLower(h)] = i + 1
	}
	return head, nil
}

var (
	csvLine     = regexp.MustCompile(`CSV Error on Line: (\d+)`)
	csvCount    = regexp.MustCompile(`Expected Number of Columns: (\d+) Found: (\d+)`)
	csvOriginal = regexp.MustCompile(`(?m)^Original Line: (.*)$`)
)

// malformed explains a file that cannot be read as its format: the line and, where it can be told, the column.
func (s *session) malformed(err error, j data.IngestJob) error {
	text, full := err.Error(), err
	if s.hide {
		err = hidden
	}
	next := "Correct the file, or remove it from the sources."
	if m := csvLine.FindStringSubmatch(text); m != nil {
		where := j.Name + ", line " + m[1]
		var why string
		switch c := csvCount.FindStringSubmatch(text); {
		case c != nil:
			var want, got int
			_, _ = fmt.Sscan(c[1], &want)
			_, _ = fmt.Sscan(c[2], &got)
			where += fmt.Sprintf(", column %d", min(want, got)+1)
			why = fmt.Sprintf("it has %s values where the header names %s columns", c[2], c[1])
		case strings.Contains(text, "unterminated quote"):
			why = "a quoted value does not end"
			if o := csvOriginal.FindStringSubmatch(text); o != nil {
				where += fmt.Sprintf(", column %d", 1+strings.Count(o[1][:max(0, strings.Index(o[1], `"`))], delim(j)))
			}
		case strings.Contains(text, "unicode"):
			why, next = "it is not UTF-8 text", "Save the file as UTF-8."
		case strings.Contains(text, "Maximum line size"):
			why = "it is longer than 4 MiB"
		default:
			why = "it is not valid CSV"
		}
		return fault.Wrap(err, fault.Invalid, where+": "+why+".", next).(*fault.E).At("source")
	}
	explained := fault.From(s.explain(full, j.Name))
	if s.hide {
		text, explained.Err = values.ReplaceAllString(text, "***"), hidden
	}
	if explained.Kind == fault.Internal || explained.Kind == fault.Invalid {
		_, words := split(strings.ReplaceAll(text, s.dir+"/", ""))
		first, _, _ := strings.Cut(words, "\n")
		return fault.Wrap(err, fault.Invalid, fmt.Sprintf("%s cannot be read as %s: %s", j.Name, j.Format, clip(strings.ReplaceAll(first, j.Path, j.Name), 300)), next).(*fault.E).At("source")
	}
	return explained
}

// form is a type and the condition on a text _falaj_v to be a value of it.
type form struct{ typ, holds string }

// forms lists the types that text can turn out to be, narrowest first. A code with a leading zero is no number.
func forms() []form {
	zone := "regexp_matches(substring(_falaj_v, 12), '(Z|[+-][0-9]{2}(:?[0-9]{2})?)$')"
	return []form{
		{"BOOLEAN", "lower(_falaj_v) IN ('true', 'false')"},
		{"BIGINT", "CAST(TRY_CAST(_falaj_v AS BIGINT) AS VARCHAR) = _falaj_v"},
		{"DOUBLE", "TRY_CAST(_falaj_v AS DOUBLE) IS NOT NULL AND NOT (length(_falaj_v) > 1 AND left(_falaj_v, 1) = '0' AND substring(_falaj_v, 2, 1) BETWEEN '0' AND '9')"},
		{"DATE", "length(_falaj_v) = 10 AND TRY_CAST(_falaj_v AS DATE) IS NOT NULL"},
		{"TIMESTAMP", "length(_falaj_v) >= 16 AND TRY_CAST(_falaj_v AS TIMESTAMP) IS NOT NULL AND NOT " + zone},
		{timestampTZ, "length(_falaj_v) >= 17 AND TRY_CAST(_falaj_v AS TIMESTAMPTZ) IS NOT NULL AND " + zone},
	}
}

// infer finds the narrowest type that holds every value of each text column of raw. A column without any value stays
// text. A look at the first rows leaves few types to try on all of them.
func (s *session) infer(ctx context.Context, cols []data.Column) ([]data.Column, error) {
	all := forms()
	holds := func(col, from string, some []form) ([]any, error) {
		asks := make([]string, len(some))
		for i, f := range some {
			asks[i] = "coalesce(bool_and(coalesce(" + f.holds + ", false)), false)"
		}
		return s.row(ctx, fmt.Sprintf("SELECT %s FROM (SELECT %s AS _falaj_v FROM %s) WHERE _falaj_v IS NOT NULL", strings.Join(asks, ", "), ident(col), from))
	}
	out := slices.Clone(cols)
	for i, c := range cols {
		if c.Type != "VARCHAR" {
			continue
		}
		first, err := holds(c.Name, fmt.Sprintf("(SELECT * FROM %s WHERE %s IS NOT NULL LIMIT 1000)", raw, ident(c.Name)), all)
		if err != nil {
			return nil, err
		}
		for k, f := range all {
			if first[k] != true {
				continue
			}
			whole, err := holds(c.Name, raw, []form{f})
			if err != nil {
				return nil, err
			}
			if whole[0] == true {
				out[i].Type = f.typ
				break
			}
		}
	}
	return out, nil
}
