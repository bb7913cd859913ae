package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Tables lists the names that a SELECT reads from, in order of appearance, without its own WITH names: the candidates
// for its input datasets. It looks at words only (after FROM and JOIN, and commas between), not at the meaning: the
// engine binds the text later and refuses what is not there.
func Tables(sql string) []string {
	words := sqlWords(sql)
	own := map[string]bool{}
	for i, w := range words {
		// NAME AS ( or NAME (columns) AS ( after WITH or a comma
		if i > 0 && w.name && (words[i-1].text == "WITH" || words[i-1].text == "RECURSIVE" || words[i-1].text == ",") && isWithName(words[i+1:]) {
			own[strings.ToLower(w.text)] = true
		}
	}
	var out []string
	type level struct{ from bool }
	levels := []level{{}}
	for i, w := range words {
		top := &levels[len(levels)-1]
		switch {
		case w.text == "(" && !w.name:
			levels = append(levels, level{})
		case w.text == ")" && !w.name:
			if len(levels) > 1 {
				levels = levels[:len(levels)-1]
			}
		case w.keyword("FROM"):
			// substring(a FROM 1), extract(x FROM y), IS DISTINCT FROM: no tables
			top.from = !(i > 0 && words[i-1].keyword("DISTINCT")) && (len(levels) == 1 || words[i-1].text == "(" || hasSelect(words, i))
			continue
		case w.keyword("WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "WINDOW", "QUALIFY", "UNION", "INTERSECT", "EXCEPT", "SELECT", "ON", "USING", "SAMPLE", "OFFSET"):
			top.from = false
		case w.keyword("JOIN"):
			top.from = true
		}
		if !top.from || !w.name || i == 0 {
			continue
		}
		before := words[i-1]
		called := i+1 < len(words) && !words[i+1].name && (words[i+1].text == "(" || words[i+1].text == ".")
		name := strings.ToLower(w.text)
		if (before.keyword("FROM", "JOIN") || before.text == "," && !before.name) && !called && !own[name] && !slices.Contains(out, name) && !w.keyword("LATERAL", "SELECT", "VALUES") {
			out = append(out, name)
		}
	}
	return out
}

// hasSelect says whether the FROM at i belongs to a SELECT of the same brackets.
func hasSelect(words []sqlWord, i int) bool {
	depth := 0
	for j := i - 1; j >= 0; j-- {
		switch {
		case words[j].text == ")" && !words[j].name:
			depth++
		case words[j].text == "(" && !words[j].name:
			if depth--; depth < 0 {
				return false
			}
		case depth == 0 && words[j].keyword("SELECT", "FROM"):
			return words[j].keyword("SELECT")
		}
	}
	return false
}

func isWithName(rest []sqlWord) bool {
	i := 0
	if len(rest) > 0 && rest[0].text == "(" && !rest[0].name {
		for i < len(rest) && rest[i].text != ")" {
			i++
		}
		i++
	}
	if i < len(rest) && rest[i].keyword("AS") {
		i++
		for i < len(rest) && rest[i].keyword("NOT", "MATERIALIZED") {
			i++
		}
		return i < len(rest) && rest[i].text == "(" && !rest[i].name
	}
	return false
}

// sqlWord is a name (quoted or not), or one mark. Keywords are names that were not quoted.
type sqlWord struct {
	text   string
	name   bool
	quoted bool
}

func (w sqlWord) keyword(words ...string) bool {
	return w.name && !w.quoted && slices.Contains(words, strings.ToUpper(w.text))
}

func sqlWords(sql string) []sqlWord {
	var out []sqlWord
	for i := 0; i < len(sql); {
		c := sql[i]
		switch {
		case strings.HasPrefix(sql[i:], "--"):
			n := strings.IndexByte(sql[i:], '\n')
			if n < 0 {
				return out
			}
			i += n
		case strings.HasPrefix(sql[i:], "/*"):
			n := strings.Index(sql[i+2:], "*/")
			if n < 0 {
				return out
			}
			i += n + 4
		case c == '\'' || c == '"':
			end := i + 1
			for end < len(sql) && (sql[end] != c || end+1 < len(sql) && sql[end+1] == c) {
				if sql[end] == c {
					end++
				}
				end++
			}
			if c == '"' && end <= len(sql) {
				out = append(out, sqlWord{strings.ReplaceAll(sql[i+1:min(end, len(sql))], `""`, `"`), true, true})
			} else {
				out = append(out, sqlWord{text: "'"})
			}
			i = end + 1
		case isWordByte(c):
			end := i
			for end < len(sql) && isWordByte(sql[end]) {
				end++
			}
			w := sql[i:end]
			out = append(out, sqlWord{text: w, name: c < '0' || c > '9'})
			if k := len(out) - 1; out[k].keyword("WITH", "RECURSIVE") {
				out[k].text = strings.ToUpper(w)
			}
			i = end
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		default:
			out = append(out, sqlWord{text: string(c)})
			i++
		}
	}
	return out
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// order sorts the datasets so that each comes after those it reads, or names a cycle.
func order(reads map[string][]string) (sorted []string, cycle []string) {
	state := map[string]int{}
	var visit func(n string, path []string) []string
	visit = func(n string, path []string) []string {
		if state[n] == 2 {
			return nil
		}
		if state[n] == 1 {
			return append(path[slices.Index(path, n):], n)
		}
		state[n] = 1
		for _, m := range reads[n] {
			if c := visit(m, append(path, n)); c != nil {
				return c
			}
		}
		state[n] = 2
		sorted = append(sorted, n)
		return nil
	}
	for _, n := range sortedKeys(reads) {
		if c := visit(n, nil); c != nil {
			return nil, c
		}
	}
	return sorted, nil
}

func sortedKeys(m map[string][]string) []string { return sorted(m) }

func arrows(cycle []string) string { return fmt.Sprint(strings.Join(cycle, " reads ")) }
