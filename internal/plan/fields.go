package plan

import (
	"reflect"
	"regexp"
	"strings"
)

// field is one key of a struct of file.go.
type field struct {
	key      string
	index    []int
	typ      reflect.Type
	required bool
	enum     []string
	doc      string
}

func fieldsOf(t reflect.Type) []field {
	var out []field
	for _, f := range reflect.VisibleFields(t) {
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		fl := field{key: key, index: f.Index, typ: f.Type, required: f.Tag.Get("req") == "true", doc: f.Tag.Get("doc")}
		if e := f.Tag.Get("enum"); e != "" {
			fl.enum = strings.Split(e, ",")
		}
		out = append(out, fl)
	}
	return out
}

// name is how a path is said to people.
func name(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

var listPlace = regexp.MustCompile(`\[\d+\]`)

// matchPath compares a path with a pattern that has * for a name and [] for a place in a list.
func matchPath(pattern, path string) bool {
	p, q := strings.Split(pattern, "."), strings.Split(listPlace.ReplaceAllString(path, "[]"), ".")
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != "*" && p[i] != q[i] {
			return false
		}
	}
	return true
}

// nearest is the known word that key may be a slip of, or "".
func nearest(key string, known []string) string {
	best, least := "", max(2, len(key)/3)+1
	for _, k := range known {
		if d := distance(strings.ToLower(key), k, least); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop, replace or swap (with the neighbour), or at least limit.
func distance(a, b string, limit int) int {
	if len(a) > 64 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
