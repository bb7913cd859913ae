package app

import (
	_ "embed"
	"strings"
)

//go:embed config.go
var configSource string

// ExplainConfig is the reference of the settings: the comments of type Config, which cannot drift from the code they are in.
func ExplainConfig() string {
	_, body, _ := strings.Cut(configSource, "type Config struct {\n")
	body, _, _ = strings.Cut(body, "\n}\n")
	var out, comment strings.Builder
	for _, line := range strings.Split(body, "\n") {
		line = strings.TrimSpace(line)
		if c, ok := strings.CutPrefix(line, "// "); ok {
			comment.WriteString(" " + c)
			continue
		}
		_, tag, ok := strings.Cut(line, `yaml:"`)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(tag, `"`)
		out.WriteString(name + "\n   " + comment.String() + "\n")
		comment.Reset()
	}
	return out.String()
}
