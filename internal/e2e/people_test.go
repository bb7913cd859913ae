package e2e

import (
	"strings"
	"testing"
)

// What an admin does on the command line: people, their passwords, where events go.
func TestPeopleAndWebhooksOnTheCommandLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const another = "a longer sentence than before"
	input := func(p person, in string, args ...string) result { return w.command(w.dir, p.config, in, args...) }
	t.Run("password", func(t *testing.T) {
		v := w.in(t)
		if r := input(v.vera, "not my password\n"+another+"\n", "user", "password", "vera", "--own"); r.code != 3 || !strings.Contains(r.err, "old password is wrong") {
			t.Errorf("with a wrong present password: exit %d: %s", r.code, r.err)
		}
		if r := input(v.vera, password+"\n"+another+"\n", "user", "password", "vera", "--own"); r.code != 0 {
			t.Errorf("her own: exit %d: %s", r.code, r.err)
		}
		if r := input(v.vera, password+"\n", "login", "--user", "vera"); r.code == 0 {
			t.Error("the former password signs in")
		}
		if r := input(v.vera, another+"\n", "user", "password", "badr"); r.code != 3 {
			t.Errorf("another's: exit %d: %s", r.code, r.err)
		}
		if r := input(v.amal, password+"\n", "user", "password", "vera"); r.code != 0 {
			t.Errorf("by an admin: exit %d: %s", r.code, r.err)
		}
		v.login("vera")
	})
	t.Run("webhook", func(t *testing.T) {
		v := w.in(t)
		v.refusal(v.amal.falaj("webhook", "add", "ftp://example.com/hook", "--region", "ae"), 1, "https")
		r := v.amal.ok("webhook", "add", "https://example.com/hook", "--type", "change.*", "--region", "ae")
		if len(strings.TrimSpace(r.out)) < 40 {
			t.Errorf("no secret: %q", r.out)
		}
		id, _, _ := strings.Cut(r.err, " ")
		if list := v.amal.ok("webhook", "list").out; !strings.Contains(list, id) || !strings.Contains(list, "change.*") || strings.Contains(list, strings.TrimSpace(r.out)) {
			t.Errorf("the list: %s", list)
		}
		if r := v.vera.falaj("webhook", "remove", id); r.code != 3 {
			t.Errorf("a viewer removes it: exit %d: %s", r.code, r.err)
		}
		v.amal.ok("webhook", "remove", id)
		if list := v.amal.ok("webhook", "list").out; strings.Contains(list, id) {
			t.Errorf("still there: %s", list)
		}
	})
}
