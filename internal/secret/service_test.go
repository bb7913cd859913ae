package secret_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/secret"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

const canary = "canary-7d1f-in-the-mine"

func service(t *testing.T, db *store.Store, cfg secret.Config) *secret.Service {
	t.Helper()
	keys, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	folder, err := dir.Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	return secret.New(db, blob.New(db, keys, folder), keys.MAC, cfg)
}

// plan opens references as a step does.
func plan() context.Context { return storetest.As("system:plan") }

// TestResolvers holds every Resolver to its contract: put gives name a value, drop takes it away. It sets variables of the
// process, so nothing runs beside it.
func TestResolvers(t *testing.T) {
	db := storetest.SQLite(t)
	folder := t.TempDir()
	s := service(t, db, secret.Config{Env: []string{"FALAJ_TEST_A", "FALAJ_TEST_B"}, Dir: folder})
	for scheme, r := range map[string]struct {
		put  func(name string, value []byte) error
		drop func(name string) error
		off  string // a name that the administrator does not allow, "" where there is no such thing
	}{
		secret.Embedded: {
			func(name string, v []byte) error {
				_, err := s.Set(storetest.As("root"), "flights", name, v)
				return err
			},
			func(name string) error { return s.Remove(storetest.As("root"), "flights", name) }, "",
		},
		secret.Env: {
			func(name string, v []byte) error { return os.Setenv(name, string(v)) },
			os.Unsetenv, "PATH",
		},
		secret.File: {
			func(name string, v []byte) error { return os.WriteFile(filepath.Join(folder, name), v, 0o600) },
			func(name string) error { return os.Remove(filepath.Join(folder, name)) }, "/etc/passwd",
		},
	} {
		t.Run(scheme, func(t *testing.T) {
			a, b := scheme+"://FALAJ_TEST_A", scheme+"://FALAJ_TEST_B"
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Open(plan(), "flights", a); !fault.Is(err, fault.NotFound) || fault.From(err).Next == "" {
				t.Errorf("a name that is not there: %v", err)
			}
			must(r.put("FALAJ_TEST_A", []byte(canary+"\nsecond line\n")))
			one, err := s.Open(plan(), "flights", a)
			if err != nil || string(one.Bytes()) != canary+"\nsecond line\n" || one.Version == "" {
				t.Fatalf("%v %v", one, err)
			}
			again, err := s.Open(plan(), "flights", a)
			if err != nil || again.Version != one.Version {
				t.Errorf("the same value has two versions: %q %q %v", one.Version, again.Version, err)
			}
			must(r.put("FALAJ_TEST_B", []byte(canary+"\nsecond line\n")))
			if other, err := s.Open(plan(), "flights", b); err != nil || scheme != secret.Embedded && other.Version == one.Version {
				t.Errorf("versions tell that two names have one value: %v", err)
			}
			must(r.put("FALAJ_TEST_A", []byte("another value")))
			if two, err := s.Open(plan(), "flights", a); err != nil || string(two.Bytes()) != "another value" || two.Version == one.Version {
				t.Errorf("after it was set again: %v %v", two, err)
			}
			for _, verb := range []string{"%v", "%+v", "%s", "%#v", "%q"} {
				if got := fmt.Sprintf(verb, one); strings.Contains(got, "canary") {
					t.Errorf("%s prints the value", verb)
				}
			}
			if j, err := json.Marshal(map[string]any{"v": one}); err != nil || bytes.Contains(j, []byte("canary")) {
				t.Errorf("JSON: %s %v", j, err)
			}
			if scheme != secret.Embedded {
				must(r.put("FALAJ_TEST_A", []byte("short")))
				if _, err := s.Open(plan(), "flights", a); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "'short'") {
					t.Errorf("a short value: %v", err)
				}
			}
			if r.off != "" {
				if _, err := s.Open(plan(), "flights", scheme+"://"+r.off); !fault.Is(err, fault.Denied) {
					t.Errorf("a name that is not allowed: %v", err)
				}
			}
			must(r.drop("FALAJ_TEST_A"))
			must(r.drop("FALAJ_TEST_B"))
			if _, err := s.Open(plan(), "flights", a); !fault.Is(err, fault.NotFound) {
				t.Errorf("after it was removed: %v", err)
			}
		})
	}
	// Nothing is allowed where the administrator said nothing.
	bare := service(t, db, secret.Config{})
	for _, ref := range []string{"env://HOME", "file://x"} {
		if _, err := bare.Open(plan(), "flights", ref); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestFilesStayInTheirFolder(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	folder := filepath.Join(base, "secrets")
	for name, text := range map[string]string{"secrets/db/pw": canary, "outside": "outside " + canary} {
		path := filepath.Join(base, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Symlink("../outside", filepath.Join(folder, "link")), os.Symlink("db/pw", filepath.Join(folder, "inner")),
		syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o600), os.WriteFile(filepath.Join(folder, "huge"), make([]byte, secret.MaxSize+1), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	s := service(t, storetest.SQLite(t), secret.Config{Dir: folder})
	for _, name := range []string{"db/pw", "inner", folder + "/db/pw"} {
		if v, err := s.Open(plan(), "flights", "file://"+name); err != nil || string(v.Bytes()) != canary {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"../outside", "db/../../outside", "link", base + "/outside", folder + "/../outside", folder, "db", "pipe", "/etc/passwd", "huge", "", "a\x00b"} {
		if v, err := s.Open(plan(), "flights", "file://"+name); err == nil || len(v.Bytes()) > 0 || fault.From(err).Next == "" || fault.KindOf(err) == fault.Internal {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]fault.Kind{
		"secret://DB_PASSWORD": "", "env://X": "", "file://a/b.pem": "",
		"vault://kv/x#y": fault.Unsupported,
		"hunter2hunter2": fault.Invalid, "https://x/y": fault.Invalid, "secret://": fault.Invalid, "secret://a b": fault.Invalid, "secret://1x": fault.Invalid,
		"env://a=b": fault.Invalid, "file://../x": fault.Invalid, "file://a/../../x": fault.Invalid, "": fault.Invalid,
	} {
		ref, err := secret.ParseRef(text)
		if (err == nil) != (want == "") || err != nil && fault.KindOf(err) != want || err == nil && ref.String() != text {
			t.Errorf("%q: %v %v", text, ref, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the refusal repeats what may be a secret: %v", err)
		}
	}
}

func TestSecretsOfProjects(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		s, root := service(t, db, secret.Config{}), storetest.As("root")
		for want := range int64(2) {
			if i, err := s.Set(root, "flights", "DB", []byte(fmt.Sprint(canary, want+1))); err != nil || i.Version != want+1 || i.Actor != "user:root" || i.Created.IsZero() {
				t.Fatalf("%+v %v", i, err)
			}
		}
		if v, err := s.Open(plan(), "flights", "secret://DB"); err != nil || string(v.Bytes()) != canary+"2" || v.Version != "v2" {
			t.Fatalf("%v", err)
		}
		if _, err := s.Open(plan(), "weather", "secret://DB"); !fault.Is(err, fault.NotFound) {
			t.Errorf("another project opened it: %v", err)
		}
		list, err := s.List(root, "flights")
		if err != nil || len(list) != 1 || list[0].Name != "DB" || list[0].Version != 2 {
			t.Errorf("%+v %v", list, err)
		}
		for _, name := range []string{"amal", "badr", "vera"} {
			if _, err := s.Set(storetest.As(name), "flights", "DB", []byte(canary)); !fault.Is(err, fault.Denied) {
				t.Errorf("%s set it: %v", name, err)
			}
			if err := s.Remove(storetest.As(name), "flights", "DB"); !fault.Is(err, fault.Denied) {
				t.Errorf("%s removed it: %v", name, err)
			}
		}
		for name, value := range map[string]string{"1x": canary, "a b": canary, "": canary, "SHORT": "1234567", "LONG": strings.Repeat("x", secret.MaxSize+1)} {
			if _, err := s.Set(root, "flights", name, []byte(value)); !fault.Is(err, fault.Invalid) || fault.From(err).Next == "" {
				t.Errorf("%q: %v", name, err)
			}
		}
		if err := s.Remove(root, "flights", "DB"); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(root, "flights", "DB"); !fault.Is(err, fault.NotFound) {
			t.Errorf("removed twice: %v", err)
		}
		if list, err := s.List(root, "flights"); err != nil || len(list) != 0 {
			t.Errorf("%+v %v", list, err)
		}
		// A name that comes back is not taken for what it was: versions only grow.
		if i, err := s.Set(root, "flights", "DB", []byte(canary)); err != nil || i.Version != 3 {
			t.Errorf("%+v %v", i, err)
		}
		inClear(t, db)
	})
}

// inClear looks for the value in everything that the record says, and in the table itself.
func inClear(t *testing.T, db *store.Store) {
	t.Helper()
	entries, err := db.Entries(context.Background(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	events, err := db.Events(context.Background(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal([]any{entries, events})
	if err != nil || bytes.Contains(text, []byte("canary")) {
		t.Errorf("the record holds the value: %v", err)
	}
	var acts []string
	for _, e := range entries {
		if e.Decision == "allow" && strings.HasPrefix(e.Action, "secret.") {
			acts = append(acts, e.Action)
		}
	}
	if !slices.Equal(acts, []string{"secret.set", "secret.set", "secret.remove", "secret.set"}) {
		t.Errorf("recorded %v", acts)
	}
	kept := 0
	err = db.View(context.Background(), func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT sealed FROM secrets`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var sealed []byte
			if err := rows.Scan(&sealed); err != nil {
				return err
			}
			if bytes.Contains(sealed, []byte("canary")) {
				t.Error("a value lies in clear")
			}
			if sealed != nil {
				kept++
			}
		}
		return rows.Err()
	})
	if err != nil || kept != 1 {
		t.Errorf("%d values are kept, want the newest alone: %v", kept, err)
	}
}

func TestRedactor(t *testing.T) {
	t.Parallel()
	pem := "-----BEGIN THING-----\nMIIEpAIBAAKCAQEA\nab\n-----END THING-----\n"
	r := secret.NewRedactor([]byte("p/w \"1\" + more"), []byte(pem), []byte("longer than p"), []byte("longer than p and more"))
	for in, want := range map[string]string{
		`is p/w "1" + more!`:         "is ***!",
		`{"p": "p/w \"1\" + more"}`:  `{"p": "***"}`,
		"u=p%2Fw+%221%22+%2B+more&x": "u=***&x",
		"Basic cC93ICIxIiArIG1vcmU=": "Basic ***",
		"MIIEpAIBAAKCAQEA":           "***",
		"'MIIEpAIBAAKCAQEA\\nab\\n'": "'***\\nab\\n'",
		"longer than p and more":     "***",
		"longer than p and":          "*** and",
		"harmless text, ab":          "harmless text, ab",
	} {
		if got := r.Text(in); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
	if got := (secret.Redactor{}).Text("x"); got != "x" {
		t.Errorf("the zero value changes text: %q", got)
	}
	// However a text is cut in pieces, no part of the value gets through.
	text := strings.Repeat("x", 50) + canary + strings.Repeat("y", 50) + canary
	c := secret.NewRedactor([]byte(canary))
	for size := 1; size < len(text); size++ {
		out, rest := "", ""
		for piece := range slices.Chunk([]byte(text), size) {
			var shown string
			shown, rest = c.Cut(rest + string(piece))
			out += shown
		}
		out += c.Text(rest)
		if want := strings.Repeat("x", 50) + "***" + strings.Repeat("y", 50) + "***"; out != want {
			t.Fatalf("pieces of %d: %q", size, out)
		}
	}
}
