package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"falaj/internal/backup"
	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

// keptSnapshots is how many copies of each database stay.
const keptSnapshots = 3

// writer is this binary as the data directory names it.
func writer() (string, error) {
	schema, err := store.KnownSchema()
	return backup.Writer(Version, schema), err
}

// guardUpgrade copies the databases that bring themselves to a new form when they are opened, before another falaj than the
// last one opens them. falaj.db is copied by its own migration. Nobody has them open yet.
func guardUpgrade(ctx context.Context, dir string, log *slog.Logger) error {
	mine, err := writer()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, backup.WriterFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	last := strings.TrimSpace(string(b))
	if last == mine {
		return nil
	}
	now := time.Now().UTC().Format("20060102T150405.000000")
	var pairs [][2]string
	for _, name := range []string{"catalog", "flow", "online"} {
		from := filepath.Join(dir, name+".db")
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		pairs = append(pairs, [2]string{from, filepath.Join(dir, "snapshots", "before-upgrade-"+now+"-"+name+".db")})
	}
	if len(pairs) == 0 {
		return nil
	}
	if err := copyDatabases(ctx, pairs, nil); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The copies before the upgrade failed; nothing was changed.", "Free space beside the databases, then start again.")
	}
	for _, p := range pairs {
		if err := os.Chmod(p[1], 0o600); err != nil {
			return err
		}
	}
	log.Info("databases copied before another version opens them", "wrote", last, "opens", mine, "folder", filepath.Join(dir, "snapshots"))
	return nil
}

// signUpgrade says that this falaj wrote the directory, once everything opened, and drops old copies.
func signUpgrade(dir string, log *slog.Logger) error {
	mine, err := writer()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, backup.WriterFile)
	if b, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(b)) != mine {
		if err := os.WriteFile(path+".new", []byte(mine+"\n"), 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	for _, form := range []string{"before-migration-*.db", "before-upgrade-*-catalog.db", "before-upgrade-*-flow.db", "before-upgrade-*-online.db"} {
		if err := prune(filepath.Join(dir, "snapshots", form)); err != nil {
			log.Warn("an old copy could not be removed", "err", err) // it only takes space
		}
	}
	return nil
}

// prune keeps the newest copies of one kind, by the files' times.
func prune(form string) error {
	names, err := filepath.Glob(form)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		at   time.Time
	}
	list := make([]aged, 0, len(names))
	for _, n := range names {
		st, err := os.Stat(n)
		if err != nil {
			return err
		}
		list = append(list, aged{n, st.ModTime()})
	}
	slices.SortFunc(list, func(a, b aged) int {
		if c := b.at.Compare(a.at); c != 0 {
			return c
		}
		return strings.Compare(b.name, a.name)
	})
	var errs []error
	for _, old := range list[min(len(list), keptSnapshots):] {
		errs = append(errs, os.Remove(old.name))
	}
	return errors.Join(errs...)
}
