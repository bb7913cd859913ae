package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"falaj/internal/access"
	"falaj/internal/blob"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// KeyRotation says what RotateKeys did.
type KeyRotation struct {
	Folder   string   `json:"folder"`
	Key      uint32   `json:"key"`      // wraps data keys now
	Disabled []uint32 `json:"disabled"` // open nothing any more
	DataKeys int      `json:"data_keys"`
	Resumed  bool     `json:"resumed"` // finished what was interrupted
}

// RotateKeys gives the keyset of a stopped server a new key-encryption key. It may be killed anywhere and run again: until
// its end, old and new key both open. The data keys stay, so no data is written anew; whoever had the old key and an old
// copy of the database still has that copy.
func RotateKeys(ctx context.Context, cfg Config, log *slog.Logger) (_ KeyRotation, err error) {
	if cfg, err = cfg.Complete(); err != nil {
		return KeyRotation{}, err
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "FORMAT")); err != nil {
		return KeyRotation{}, fault.Wrap(err, fault.NotFound, "There is no data directory of falaj "+cfg.Data+".", "Name the server's: --data DIR.")
	}
	lock, err := claim(cfg.Data)
	if err != nil {
		return KeyRotation{}, err
	}
	defer lock.Close()
	engine, err := policy.New()
	if err != nil {
		return KeyRotation{}, err
	}
	driver, err := (&App{cfg: cfg}).database(ctx)
	if err != nil {
		return KeyRotation{}, err
	}
	db, err := store.Open(ctx, driver, access.NewAuthorizer(engine, cfg.Region, false), filepath.Join(cfg.Data, "snapshots"), log)
	if err != nil {
		return KeyRotation{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	out := KeyRotation{Folder: cfg.Keys}
	check := func(keys *seal.Keys) error { return blob.CheckKeys(ctx, db, keys) }
	r, err := seal.Rotate(cfg.Keys, check, func(keys *seal.Keys) (err error) {
		out.DataKeys, err = blob.Rewrap(who.AsSystem(ctx, "app"), db, keys)
		return err
	})
	out.Key, out.Disabled, out.Resumed = r.Key, r.Disabled, r.Resumed
	return out, err
}
