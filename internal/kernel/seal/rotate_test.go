package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"falaj/internal/kernel/seal"
)

// shelf stands for the table of data keys.
type shelf map[string][]byte

func (s shelf) rewrap(k *seal.Keys) error {
	for aad, wrapped := range s {
		fresh, err := k.Rewrap(wrapped, aad)
		if err != nil {
			return err
		}
		s[aad] = fresh
	}
	return nil
}

func (s shelf) opens(t *testing.T, dir string, sealed map[string][]byte) {
	t.Helper()
	k := open(t, dir)
	for aad, value := range sealed {
		box, err := k.Box(s[aad], aad)
		if err != nil {
			t.Fatalf("%s: %v", aad, err)
		}
		if got, err := box.Open(value, nil); err != nil || string(got) != "value of "+aad {
			t.Errorf("%s: %q, %v", aad, got, err)
		}
	}
}

func right(*seal.Keys) error { return nil }

func fill(t *testing.T, dir string) (shelf, map[string][]byte) {
	t.Helper()
	k, keys, sealed := open(t, dir), shelf{}, map[string][]byte{}
	for _, aad := range []string{"flights", "weather"} {
		var err error
		if keys[aad], err = k.NewDataKey(aad); err != nil {
			t.Fatal(err)
		}
		box, err := k.Box(keys[aad], aad)
		if err != nil {
			t.Fatal(err)
		}
		if sealed[aad], err = box.Seal([]byte("value of "+aad), nil); err != nil {
			t.Fatal(err)
		}
	}
	return keys, sealed
}

func TestRotateKeepsTheDataAndDisablesTheOldKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	keys, sealed := fill(t, dir)
	before, mac := bytes.Clone(keys["flights"]), open(t, dir).MAC("token", []byte("x"))
	for round := range 3 {
		r, err := seal.Rotate(dir, right, keys.rewrap)
		if err != nil || len(r.Disabled) != 1 || r.Resumed || r.Key == r.Disabled[0] {
			t.Fatalf("round %d: %+v, %v", round, r, err)
		}
		keys.opens(t, dir, sealed)
	}
	k := open(t, dir)
	if _, err := k.Box(before, "flights"); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("a data key wrapped by a disabled key opened: %v", err)
	}
	if !bytes.Equal(k.MAC("token", []byte("x")), mac) {
		t.Error("a rotation changed the root: tokens and pseudonyms would be lost")
	}
	left, err := os.ReadDir(dir)
	if st, e := os.Stat(filepath.Join(dir, "keyset.json")); err != nil || e != nil || st.Mode().Perm() != 0o600 || len(left) != 1 {
		t.Errorf("%v %v %v: want one file of mode 0600", left, err, e)
	}
}

// The two places where a crash leaves a half-done rotation: before and after the data keys are wrapped again.
func TestRotateGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	for name, begin := range map[string]func(shelf, *seal.Keys) error{
		"nothing is wrapped": func(shelf, *seal.Keys) error { return crash },
		"one is wrapped": func(s shelf, k *seal.Keys) (err error) {
			s["flights"], err = k.Rewrap(s["flights"], "flights")
			return errors.Join(err, crash)
		},
		"everything is wrapped": func(s shelf, k *seal.Keys) error { return errors.Join(s.rewrap(k), crash) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "keys")
			keys, sealed := fill(t, dir)
			for range 2 {
				if _, err := seal.Rotate(dir, right, func(k *seal.Keys) error { return begin(keys, k) }); !errors.Is(err, crash) {
					t.Fatal(err)
				}
				keys.opens(t, dir, sealed)
			}
			// A crash while the file is written leaves a part of it beside.
			if err := os.WriteFile(filepath.Join(dir, "keyset.json.LEFT"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := seal.Rotate(dir, right, keys.rewrap)
			if err != nil || !r.Resumed || len(r.Disabled) != 1 {
				t.Fatalf("%+v, %v", r, err)
			}
			keys.opens(t, dir, sealed)
		})
	}
}

func TestRotateRefusesWhatIsNoKeyset(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := seal.Rotate(d, right, shelf{}.rewrap); err == nil || !strings.Contains(err.Error(), "keys folder") {
			t.Errorf("%v", err)
		}
	}
	keys := filepath.Join(dir, "k")
	all, sealed := fill(t, keys)
	all["strange"] = []byte("no key")
	if _, err := seal.Rotate(keys, right, all.rewrap); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	all.opens(t, keys, sealed)
	before, err := os.ReadFile(filepath.Join(keys, "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	wrong := errors.New("another server's keys")
	if _, err := seal.Rotate(keys, func(*seal.Keys) error { return wrong }, all.rewrap); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(keys, "keyset.json")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a keyset that is not the right one was changed: %v", err)
	}
}
