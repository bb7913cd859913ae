// Package backup carries a whole installation in one file: taken while the server runs, checked without it, restored elsewhere.
// Databases and spool are sealed by keys derived from the keyset, blobs are sealed already; without the keyset nothing opens.
package backup

import (
	"context"
	"database/sql"
	"regexp"
	"time"

	"falaj/internal/kernel/fault"
)

// formatVersion is the layout of the file. It only grows; an older falaj refuses a newer one.
const formatVersion = 1

// The entries of the archive, in this order. Blobs, spool files and databases stand under the names that they have in the
// data directory; a database or spool file is a zstd stream under a stream of kernel/seal.
const (
	manifestName = "manifest.json"
	keysName     = "keys.json"   // the keyset under a passphrase, only when asked for
	databaseDir  = "databases/"  // sealed
	spoolDir     = "predictions" // sealed
	blobDir      = "blobs"       // as stored
	partsName    = "parts.jsonl" // every entry above: name, size, digest
	endName      = "end.json"    // digest of the parts and the keyset's authentication of it
	failedName   = "failed.json" // instead of the end: why the server gave up
	sumName      = "sha256"      // of every byte before it
)

// MaxKeys is how large the keyset under a passphrase may be, in bytes.
const MaxKeys = 64 << 10

// maxText bounds the small JSON entries in bytes.
const maxText = 1 << 20

// mainDatabase holds the ledger and the rows of the blobs.
const mainDatabase = "falaj.db"

// Databases are the files of the data directory that a backup holds, all as of one instant.
func Databases() []string { return []string{mainDatabase, "flow.db", "catalog.db", "online.db"} }

// The names that an archive may hold. Everything else is refused: a name is a path in the restored folder.
var (
	spoolForm = regexp.MustCompile(`^predictions/[A-Za-z0-9][A-Za-z0-9._-]{0,119}$`)
	blobForm  = regexp.MustCompile(`^blobs/([0-9a-f]{2})/([0-9a-f]{4,64})$`)
)

// Manifest is what a backup says of itself, in clear.
type Manifest struct {
	Format     int    `json:"format"`
	ID         string `json:"id"`
	Created    int64  `json:"created"` // microseconds UTC: the instant of the databases
	Falaj      string `json:"falaj"`
	DataFormat int    `json:"data_format"` // of the data directory
	Region     string `json:"region"`      // of the installation; a restored folder belongs to it
	Schema     int64  `json:"schema"`
	Ledger     Head   `json:"ledger"`
	Keyset     string `json:"keyset"`    // which keyset opens it
	WithKeys   bool   `json:"with_keys"` // the keyset is in the file, under a passphrase
	Blobs      int64  `json:"blobs"`
	Bytes      int64  `json:"bytes"` // of all parts but the manifest
}

// Head is the newest row of the ledger in the copy.
type Head struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

// Part is one line of the list of parts.
type Part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// end closes the list. Parts is the digest of parts.jsonl, which holds the manifest's; MAC is the keyset's word for it.
type end struct {
	Parts string `json:"parts_sha256"`
	Count int64  `json:"parts"`
	MAC   string `json:"mac"`
}

// macPurpose is the use of the keyset's MAC for the list of parts.
const macPurpose = "backup parts"

// restoredName is the file by which a restored folder tells the next start what it came from.
const restoredName = "RESTORED"

// Restored is what a restore leaves for the next start to record.
type Restored struct {
	Backup  string `json:"backup"`
	Created int64  `json:"created"`
	Parts   string `json:"parts_sha256"`
	Ledger  Head   `json:"ledger"`
	At      int64  `json:"at"`
}

// Tools is what verifying and restoring need of the engines; app fills it.
type Tools struct {
	// Open opens a copy of a database for reading and refuses a damaged one.
	Open       func(ctx context.Context, path string) (*sql.DB, error)
	Schema     int64 // newest that this falaj knows
	DataFormat int   // newest that this falaj knows
}

// Report is what an unpacking found.
type Report struct {
	Manifest Manifest `json:"manifest"`
	Parts    int64    `json:"parts"`
	Bytes    int64    `json:"bytes"` // of the whole file
	Digest   string   `json:"digest"`
	// Opened says that the keyset was at hand: databases decrypted, list authenticated, ledger and blobs compared.
	Opened bool `json:"opened"`
}

func damaged(err error, what string) error {
	f := fault.New(fault.Refused, "This backup is damaged: "+what+".", "Use another copy of the file; nothing was restored from this one.")
	f.Err = err
	return f
}

func micros(t time.Time) int64 { return t.UnixMicro() }
