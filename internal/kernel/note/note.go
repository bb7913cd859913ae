// Package note is a sentence for a person that can be translated: a code, its arguments and the English text.
// Pages show their own words for a known code and fall back to the text; nobody parses it.
package note

import (
	"fmt"
	"strings"
)

// Note is one sentence. Args hold strings and numbers only.
type Note struct {
	Code string         `json:"code"`
	Args map[string]any `json:"args"`
	Text string         `json:"text"`
}

// Ref points at a thing that a page can show: a model, run, dataset_version, change ... Parent is its container where the
// id alone does not name it.
type Ref struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Version *int64 `json:"version"`
	Parent  string `json:"parent"`
}

// New makes a note. The text is English with {name} for arguments; args alternate name and value.
func New(code, text string, args ...any) Note {
	n := Note{Code: code, Args: map[string]any{}, Text: text}
	for i := 0; i+1 < len(args); i += 2 {
		name := fmt.Sprint(args[i])
		n.Args[name] = args[i+1]
		n.Text = strings.ReplaceAll(n.Text, "{"+name+"}", show(args[i+1]))
	}
	return n
}

func show(v any) string {
	if f, ok := v.(float64); ok {
		s := fmt.Sprintf("%.4f", f)
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	return fmt.Sprint(v)
}
