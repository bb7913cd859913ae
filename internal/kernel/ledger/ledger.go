// Package ledger is the hash chain of audit entries: each row carries the digest of the one before it.
// It only computes and verifies; the store writes rows in the transaction of the change they record.
package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Row is one audit entry. Times are microseconds UTC (wall time). Before and After are digests of the state, never the state.
type Row struct {
	Seq        int64    `json:"seq"`
	Prev       string   `json:"prev"`
	Time       int64    `json:"time"`
	Project    string   `json:"project,omitempty"`
	Actor      string   `json:"actor"`
	OnBehalfOf string   `json:"on_behalf_of,omitempty"`
	Via        string   `json:"via,omitempty"`
	Action     string   `json:"action"`
	Resource   string   `json:"resource"`
	Decision   string   `json:"decision"` // allow or deny
	Reasons    []string `json:"reasons,omitempty"`
	Before     string   `json:"before,omitempty"`
	After      string   `json:"after,omitempty"`
	Event      string   `json:"event,omitempty"`
	Request    string   `json:"request,omitempty"`
	Hash       string   `json:"-"`
}

// Genesis is the Prev of the first row.
const Genesis = "0000000000000000000000000000000000000000000000000000000000000000"

// Canonical is the byte form that is hashed: JSON with the fields in the declared order, no HTML escaping surprises
// since encoding/json is deterministic for a struct.
func (r Row) Canonical() []byte {
	b, err := json.Marshal(r)
	if err != nil { // strings and integers always marshal
		panic(err)
	}
	return b
}

// Sum is the hex SHA-256 of the canonical form; Prev is inside it, which makes the chain.
func (r Row) Sum() string {
	h := sha256.Sum256(r.Canonical())
	return hex.EncodeToString(h[:])
}

// Digest is the short form used for Before and After.
func Digest(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Verifier checks rows in order. Broken names the first row that does not fit.
type Verifier struct {
	prev string
	seq  int64
}

// Broken is the error of a chain that does not hold.
type Broken struct {
	Seq int64
	Why string
}

func (b *Broken) Error() string { return fmt.Sprintf("ledger row %d: %s", b.Seq, b.Why) }

// Add checks the next row.
func (v *Verifier) Add(r Row) error {
	if v.prev == "" {
		v.prev = Genesis
	}
	switch {
	case r.Seq != v.seq+1:
		return &Broken{v.seq + 1, fmt.Sprintf("is missing (the next row is %d)", r.Seq)}
	case r.Prev != v.prev:
		return &Broken{r.Seq, "does not continue the chain: the row before it was changed or replaced"}
	case r.Sum() != r.Hash:
		return &Broken{r.Seq, "was changed after it was written"}
	}
	v.seq, v.prev = r.Seq, r.Hash
	return nil
}

// Head is the sequence and hash of the last row that was added.
func (v *Verifier) Head() (int64, string) {
	if v.prev == "" {
		return 0, Genesis
	}
	return v.seq, v.prev
}
