package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	blue   = "36"
	bold   = "1"
)

// paint colours words on a terminal.
func (e *env) paint(code, s string) string {
	if !e.colorful {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints aligned columns on a terminal, tab-separated lines when piped.
func (e *env) table(head []string, rows [][]string) error {
	if !isTerminal(e.out) {
		for _, r := range append([][]string{head}, rows...) {
			if _, err := fmt.Fprintln(e.out, strings.Join(r, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(e.out, 0, 4, 2, ' ', 0)
	for _, r := range append([][]string{head}, rows...) {
		if _, err := fmt.Fprintln(w, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// say prints words for the person on stderr.
func (e *env) say(format string, args ...any) { fmt.Fprintf(e.err, format+"\n", args...) }

func when(us int64) string {
	if us == 0 {
		return "-"
	}
	return time.UnixMicro(us).UTC().Format("2006-01-02 15:04")
}

func short(digest string) string {
	d := strings.TrimPrefix(digest, "sha256:")
	if len(d) > 12 {
		return d[:12]
	}
	return d
}
