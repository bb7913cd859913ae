package housetest

import (
	"regexp"
	"strings"
	"testing"
)

// ends of sentences: a full stop, question or exclamation mark before white space or the end, and not an abbreviation.
var sentenceEnd = regexp.MustCompile(`[.!?][)"'` + "`" + `]*(\s|$)`)

func sentences(text string) int {
	text = strings.NewReplacer("e.g. ", "eg ", "i.e. ", "ie ", "etc. ", "etc ").Replace(text)
	return len(sentenceEnd.FindAllString(text, -1))
}

// TestEveryPackageSaysWhatItIsFor: the tree teaches. A folder is a word of the field and its doc comment explains it in two sentences.
func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if len(p.files) == 0 {
			continue // tests only
		}
		var docs []string
		for _, f := range p.files {
			if f.Doc != nil {
				docs = append(docs, f.Doc.Text())
			}
		}
		switch {
		case len(docs) == 0:
			t.Errorf("%s has no doc comment: say in two sentences what it is for", p.short())
		case len(docs) > 1:
			t.Errorf("%s has %d doc comments: one file holds it", p.short(), len(docs))
		default:
			first := "Package " + p.Name + " "
			if p.Name == "main" {
				first = "Command "
			}
			if !strings.HasPrefix(docs[0], first) {
				t.Errorf("%s: the doc comment starts with %q, not %q", p.short(), strings.SplitN(docs[0], "\n", 2)[0], first)
			}
			if n := sentences(docs[0]); n < 2 && p.Name != "main" {
				t.Errorf("%s: the doc comment has %d sentence(s): what it is, and what the reader must know", p.short(), n)
			}
		}
	}
}

func TestSentences(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"Package a is a b. It is for c.\n":      2,
		"Package a is (for e.g. c) at 1.5 MiB.": 1,
		"Package a":                             0,
		"Package a: `x.y`! Really?":             2,
	} {
		if got := sentences(text); got != want {
			t.Errorf("%q has %d sentences, want %d", text, got, want)
		}
	}
}
