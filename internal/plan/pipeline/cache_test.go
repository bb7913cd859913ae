package pipeline

import (
	"testing"

	"pgregory.net/rapid"
)

// The key depends on nothing but the parts, and on all of them.
func TestKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := parts(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "a"))
		b := parts(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "b"))
		same := len(a) == len(b)
		for k, v := range a {
			if w, ok := b[k]; !ok || w != v {
				same = false
			}
		}
		if (a.key() == b.key()) != same {
			t.Fatalf("%v and %v", a, b)
		}
	})
}

func TestWhy(t *testing.T) {
	t.Parallel()
	last := &entry{inputs: parts{"command": "python train.py", "param trees": "100", "input flights": "sha256:a", "code train.py": "sha256:b", "runtime": "sha256:c"}}
	change := func(k, v string) parts {
		p := parts{}
		for a, b := range last.inputs {
			p[a] = b
		}
		if v == "" {
			delete(p, k)
		} else {
			p[k] = v
		}
		return p
	}
	for _, c := range []struct {
		p    parts
		last *entry
		off  bool
		code string
	}{
		{last.inputs, nil, false, "cache.first_time"},
		{last.inputs, last, true, "cache.disabled"},
		{change("param trees", "200"), last, false, "cache.params_changed"},
		{change("input flights", "sha256:x"), last, false, "cache.input_changed"},
		{change("code train.py", "sha256:x"), last, false, "cache.code_changed"},
		{change("code extra.py", "sha256:x"), last, false, "cache.code_changed"},
		{change("code train.py", ""), last, false, "cache.code_changed"},
		{change("runtime", "sha256:x"), last, false, "cache.runtime_changed"},
		{change("command", "python other.py"), last, false, "cache.changed"},
		{last.inputs, last, false, "cache.evicted"},
	} {
		if n := c.p.why(c.last, c.off); n.Code != c.code {
			t.Errorf("%v: %s, want %s", c.p, n.Code, c.code)
		}
	}
}
