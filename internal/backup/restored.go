package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
)

// WriterFile is the file of a data directory that says which falaj wrote it last.
const WriterFile = "WRITER"

// Writer is the content of WriterFile.
func Writer(falaj string, schema int64) string {
	return fmt.Sprintf("falaj %s schema %d", falaj, schema)
}

// Record tells the ledger, at the first start after a restore, what the data came from: what other copies of this
// installation did since is not in this chain.
func Record(ctx context.Context, s *store.Store, data string) error {
	path := filepath.Join(data, restoredName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r Restored
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "The note of the restore, "+path+", cannot be read.", "Restore the backup again, or remove the file: the restore is not recorded then.")
	}
	err = s.Change(ctx, "backup.restore", policy.Resource{Kind: "Backup", ID: r.Backup}, func(_ context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(r)
		return event.Draft{Type: "backup.restored", Subject: r.Backup, Data: map[string]any{"created": r.Created, "parts_sha256": r.Parts, "ledger_seq": r.Ledger.Seq, "at": r.At}}, nil
	})
	if err != nil {
		return err
	}
	return os.Remove(path)
}
