// Package audit proves that the ledger was not touched: it walks the hash chain, the events it names and the stored bytes.
// What it finds is named by row, event or blob; it changes nothing.
package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"falaj/internal/kernel/ledger"
	"falaj/internal/store"
)

// Broken is one thing that does not hold. Kind is ledger, event or blob.
type Broken struct {
	Kind string `json:"kind"`
	Seq  int64  `json:"seq"` // ledger row, 0 for a blob
	Name string `json:"name"`
	Why  string `json:"why"`
}

// Report is the outcome of a verification.
type Report struct {
	OK       bool          `json:"ok"`
	Entries  int64         `json:"entries"`
	Events   int64         `json:"events"`
	Blobs    int64         `json:"blobs"`
	HeadSeq  int64         `json:"head_seq"`
	HeadHash string        `json:"head_hash"`
	Took     time.Duration `json:"took"`
	Broken   []Broken      `json:"broken"`
}

// Blobs verifies stored bytes: it calls found for each damaged blob and returns how many it read.
type Blobs interface {
	VerifyBlobs(ctx context.Context, found func(name, why string)) (checked int, err error)
}

// Service verifies.
type Service struct {
	store *store.Store
	blobs Blobs
}

// New makes the stage. blobs may be nil where there are none.
func New(s *store.Store, blobs Blobs) *Service { return &Service{s, blobs} }

const page = 1000

// Verify walks the whole chain; with deep also every stored byte. It stops at nothing: all that is broken is listed,
// though after the first break in the chain the rows that follow are not judged.
func (s *Service) Verify(ctx context.Context, deep bool) (Report, error) {
	start := time.Now()
	r := Report{Broken: []Broken{}}
	var chain ledger.Verifier
	var after int64
	var outbox int64
	for {
		rows, err := s.store.Entries(ctx, after, page)
		if err != nil {
			return r, err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if err := chain.Add(row); err != nil {
				var b *ledger.Broken
				if !errors.As(err, &b) {
					return r, err
				}
				r.Broken = append(r.Broken, Broken{"ledger", b.Seq, row.Action, b.Why})
				goto events
			}
			r.Entries++
			after = row.Seq
		}
	}
events:
	r.HeadSeq, r.HeadHash = chain.Head()
	if len(r.Broken) == 0 {
		if err := s.head(ctx, &r); err != nil {
			return r, err
		}
	}
	for {
		batch, err := s.pairs(ctx, outbox)
		if err != nil {
			return r, err
		}
		if len(batch) == 0 {
			break
		}
		for _, p := range batch {
			if p.seq != outbox+1 {
				r.Broken = append(r.Broken, Broken{"event", 0, fmt.Sprintf("event %d", outbox+1), "is missing from the outbox"})
			}
			outbox = p.seq
			r.Events++
			switch {
			case p.row == 0:
				r.Broken = append(r.Broken, Broken{"event", 0, p.id, "has no ledger row: it was not made by a change"})
			case p.want != p.id+":"+ledger.Digest(p.data):
				r.Broken = append(r.Broken, Broken{"event", p.row, p.id, "its data was changed after it was announced"})
			}
		}
	}
	if deep && s.blobs != nil {
		n, err := s.blobs.VerifyBlobs(ctx, func(name, why string) { r.Broken = append(r.Broken, Broken{"blob", 0, name, why}) })
		if err != nil {
			return r, err
		}
		r.Blobs = int64(n)
	}
	r.OK, r.Took = len(r.Broken) == 0, time.Since(start)
	return r, nil
}

// Summary is one line for people.
func (r Report) Summary() string {
	if r.OK {
		return fmt.Sprintf("clean: %d entries, %d events, %d blobs; head %d %s", r.Entries, r.Events, r.Blobs, r.HeadSeq, r.HeadHash[:12])
	}
	var b strings.Builder
	fmt.Fprintf(&b, "BROKEN in %d places:", len(r.Broken))
	for _, x := range r.Broken {
		fmt.Fprintf(&b, "\n  %s %s", x.Kind, x.Name)
		if x.Seq != 0 {
			fmt.Fprintf(&b, " (row %d)", x.Seq)
		}
		b.WriteString(": " + x.Why)
	}
	return b.String()
}
