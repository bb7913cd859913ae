package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
)

// BackupSize is the header of a backup that says how many bytes its parts have.
const BackupSize = "X-Falaj-Backup-Bytes"

// BackupRequest asks for a backup. Keys is the keyset under a passphrase: the server is never told the passphrase, and gives
// no key away by this route.
type BackupRequest struct {
	Keys json.RawMessage `json:"keys,omitempty"`
}

// patience is how long a client may take for what was sent: while it reads, discarded files are held.
const patience = 2 * time.Minute

// everything is the resource of what concerns the whole installation.
func everything(r *http.Request) (policy.Resource, error) {
	return policy.Resource{Kind: "Installation", ID: "*"}.In(r.URL.Query().Get("region")), nil
}

// createBackup streams one backup. Until its first byte an error is a problem as everywhere; later the file says why instead of its
// end.
func (a *API) createBackup(w http.ResponseWriter, r *http.Request) {
	var req BackupRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil && !errors.Is(err, io.EOF) {
		door.Problem(w, r, fault.New(fault.Invalid, "The body is not JSON.", "Send {} or {\"keys\": ...}."))
		return
	}
	job, err := a.Backups.Prepare(r.Context(), req.Keys)
	if err != nil {
		f := fault.From(err)
		if f.Kind == fault.Internal || f.Kind == fault.Unavailable && !errors.Is(err, context.Canceled) {
			a.Log.Error("a backup could not be made", "err", err)
		}
		door.Problem(w, r, f)
		return
	}
	defer func() {
		if err := job.Close(); err != nil {
			a.Log.Error("the copies of a backup could not be removed", "err", err)
		}
	}()
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Disposition", `attachment; filename="`+job.Manifest().ID+`.falaj"`)
	w.Header().Set(BackupSize, strconv.FormatInt(job.Manifest().Bytes, 10))
	w.WriteHeader(http.StatusOK)
	ctrl := http.NewResponseController(w)
	err = job.Stream(r.Context(), &patient{w, ctrl})
	_ = ctrl.SetWriteDeadline(time.Time{}) // the connection may serve another request
	if err != nil {
		a.Log.Error("a backup broke off", "backup", job.Manifest().ID, "err", err)
	}
}

// patient gives every write its own deadline.
type patient struct {
	w    io.Writer
	ctrl *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.ctrl.SetWriteDeadline(time.Now().Add(patience)) // a writer without deadlines is a test's
	return p.w.Write(b)
}
