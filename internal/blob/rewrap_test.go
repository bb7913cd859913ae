package blob_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

// A rotation of the key-encryption key wraps the data keys of all projects and touches no blob.
func TestRewrapReadsEverythingAfterwards(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		keys := filepath.Join(t.TempDir(), "keys")
		w := build(t, db)
		open := func() world {
			k, err := seal.Open(keys)
			if err != nil {
				t.Fatal(err)
			}
			return world{Store: blob.New(db, k, w.driver), db: db, keys: k, driver: w.driver, path: w.path}
		}
		before, content := open(), noise(1, 100_000)
		refs := map[string]blob.Ref{}
		for _, p := range []string{"flights", "weather", "default"} {
			refs[p] = before.put(t, p, content)
		}
		if _, err := blob.Rewrap(storetest.As("root"), db, before.keys); !fault.Is(err, fault.Denied) {
			t.Errorf("an admin rotates keys over the API's rights: %v", err)
		}
		crash := errors.New("crash")
		for _, end := range []error{crash, nil, nil} { // after the wrapping, before the old key is disabled; then whole
			_, err := seal.Rotate(keys, func(k *seal.Keys) error { return blob.CheckKeys(t.Context(), db, k) }, func(k *seal.Keys) error {
				n, err := blob.Rewrap(storetest.As("system:app"), db, k)
				if n != len(refs) {
					t.Errorf("%d keys", n)
				}
				return errors.Join(err, end)
			})
			if !errors.Is(err, end) {
				t.Fatal(err)
			}
			now := open()
			for p, ref := range refs {
				if got, err := now.get(t, p, ref.Digest); err != nil || !slices.Equal(got, content) {
					t.Errorf("%s: %v", p, err)
				}
			}
		}
		foreign, err := seal.Open(filepath.Join(t.TempDir(), "keys"))
		if err != nil {
			t.Fatal(err)
		}
		if err := blob.CheckKeys(t.Context(), db, foreign); !errors.Is(err, seal.ErrDamaged) {
			t.Errorf("another keyset passes: %v", err)
		}
		if _, err := blob.New(db, before.keys, w.driver).Box(t.Context(), "flights"); fault.KindOf(err) != fault.Internal || fault.From(err).Next == "" {
			t.Errorf("the keyset from before opens a data key: %v", err)
		}
	})
}
