package features

import "testing"

func TestASelectEndsBeforeItsClosingCommentsAndSemicolons(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"SELECT 1":                         "SELECT 1",
		" SELECT 1 ;; \n-- done;\n":        " SELECT 1",
		"SELECT 1 -- one\n + 2 /* x */ ; ": "SELECT 1 -- one\n + 2",
		"SELECT ';--' AS \";\" ;":          "SELECT ';--' AS \";\"",
		"SELECT 'it''s' -- \"":             "SELECT 'it''s'",
		"SELECT 'open":                     "SELECT 'open",
		"/* only":                          "",
		"SELECT 1; SELECT 2;":              "SELECT 1; SELECT 2", // still two: the engine refuses it
	} {
		if got := in[:meaningful(in)]; got != want {
			t.Errorf("%q ends at %q, want %q", in, got, want)
		}
	}
}
