package ledger

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func chain(n int) []Row {
	rows, prev := make([]Row, n), Genesis
	for i := range rows {
		rows[i] = Row{Seq: int64(i + 1), Prev: prev, Time: int64(i), Actor: "user:a", Action: "x.y", Resource: "R::1", Decision: "allow"}
		rows[i].Hash = rows[i].Sum()
		prev = rows[i].Hash
	}
	return rows
}

func verify(rows []Row) error {
	var v Verifier
	for _, r := range rows {
		if err := v.Add(r); err != nil {
			return err
		}
	}
	return nil
}

// Any single edit, removal or swap inside the chain is found at or just after its place.
func TestTampering(t *testing.T) {
	t.Parallel()
	if err := verify(chain(50)); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		rows := chain(20)
		i := rapid.IntRange(0, 18).Draw(t, "i")
		switch rapid.SampledFrom([]string{"edit", "edit+rehash", "drop", "swap"}).Draw(t, "how") {
		case "edit":
			rows[i].Actor = "user:mallory"
		case "edit+rehash":
			rows[i].Action = "z"
			rows[i].Hash = rows[i].Sum()
		case "drop":
			rows = append(rows[:i], rows[i+1:]...)
		case "swap":
			rows[i], rows[i+1] = rows[i+1], rows[i]
		}
		var b *Broken
		if err := verify(rows); !errors.As(err, &b) || b.Seq < int64(i+1) || b.Seq > int64(i+2) {
			t.Fatalf("tampering at %d gave %v", i+1, err)
		}
	})
}
