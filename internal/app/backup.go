package app

import (
	"context"
	"path/filepath"

	"falaj/internal/backup"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
	"falaj/internal/store/sqlite"
)

// copyDatabases copies SQLite files in use, all as of one instant.
func copyDatabases(ctx context.Context, pairs [][2]string, cut func() error) error {
	list := make([]sqlite.Pair, len(pairs))
	for i, p := range pairs {
		list[i] = sqlite.Pair{From: p[0], To: p[1]}
	}
	return sqlite.CopyAll(ctx, list, cut)
}

// backing makes the service and records a restore that this start is the first after.
func (a *App) backing(ctx context.Context, keys *seal.Keys) (err error) {
	a.backups, err = backup.New(backup.Config{Store: a.store, Blobs: a.blobs, Keys: keys, Data: a.cfg.Data, Work: filepath.Join(a.cfg.Data, "run", "backup"),
		Copy: copyDatabases, Open: sqlite.OpenCopy, Version: Version, DataFormat: formatVersion, Region: a.cfg.Region})
	if err != nil {
		return err
	}
	return backup.Record(ctx, a.store, a.cfg.Data)
}

// BackupTools is what `falaj backup verify` and `falaj restore` work with: they need no server.
func BackupTools() (backup.Tools, error) {
	schema, err := store.KnownSchema()
	return backup.Tools{Open: sqlite.OpenCopy, Schema: schema, DataFormat: formatVersion}, err
}
