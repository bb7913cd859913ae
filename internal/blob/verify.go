package blob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
)

// Verify reads one blob whole and compares its digest. A damaged one gives an error that names project, digest and
// stored file; errors.Is finds seal.ErrDamaged in it.
func (s *Store) Verify(ctx context.Context, project, digest string) error {
	r, err := s.row(ctx, project, digest)
	if err != nil {
		return err
	}
	return s.verify(ctx, r)
}

func (s *Store) verify(ctx context.Context, r row) error {
	o, err := s.open(ctx, r)
	if err != nil {
		return err
	}
	defer o.Close()
	sum := sha256.New()
	if _, err := io.CopyBuffer(sum, struct{ io.Reader }{Watched(ctx, o)}, make([]byte, 128<<10)); err != nil {
		return err
	}
	if got := Digest([sha256.Size]byte(sum.Sum(nil))); got != r.digest {
		return r.damaged("its content has digest " + got)
	}
	return nil
}

// VerifyAll reads every blob of every project and reports each damaged one to found, in order of project and digest.
// It returns how many were read; its error is about the check itself, not about damage.
func (s *Store) VerifyAll(ctx context.Context, found func(Finding)) (checked int, err error) {
	var after row
	for {
		page, err := s.page(ctx, after, 256)
		if err != nil || len(page) == 0 {
			return checked, err
		}
		for _, r := range page {
			after = r
			err := s.verify(ctx, r)
			switch {
			case err == nil:
			case ctx.Err() != nil:
				return checked, ctx.Err()
			case errors.Is(err, seal.ErrDamaged):
				if _, gone := s.row(ctx, r.project, r.digest); fault.Is(gone, fault.NotFound) {
					continue // discarded while we read
				}
				found(Finding{Project: r.project, Digest: r.digest, Stored: r.stored, Problem: fault.From(err).Public})
			default:
				return checked, fault.Wrap(err, fault.Unavailable,
					fmt.Sprintf("Blob %s of project %s could not be read.", r.digest, r.project), "Check the disk, then verify again.")
			}
			checked++
		}
	}
}

// Sweep removes files that no row names: left by a crash, a cancelled upload or a discard. Files younger than grace
// stay, because a put in progress has no row yet; an hour is safe. It returns how many files it removed.
func (s *Store) Sweep(ctx context.Context, grace time.Duration) (removed int, err error) {
	limit := time.Now().Add(-grace)
	err = s.driver.List(ctx, func(e Entry) error {
		if e.Modified.After(limit) || s.held() {
			return nil
		}
		if !e.Partial {
			if named, err := s.named(ctx, e.Name); err != nil || named {
				return err
			}
		}
		if err := s.driver.Discard(ctx, e.Name); err != nil {
			return err
		}
		removed++
		return nil
	})
	return removed, err
}
