package serving_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"falaj/internal/delivery"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/serving"
	"falaj/internal/store"
	"falaj/internal/store/storetest"
)

func moved(t *testing.T, change string, weight int64, pointers ...delivery.Pointer) event.Event {
	t.Helper()
	for i := range pointers {
		pointers[i].Project, pointers[i].Model, pointers[i].Environment = "flights", "delay", "production"
	}
	b, err := json.Marshal(delivery.Moved{Model: "delay", Environment: "production", Change: change, Weight: weight, Pointers: pointers})
	if err != nil {
		t.Fatal(err)
	}
	return event.Event{Type: "delivery.moved", Project: "flights", Data: b}
}

// TestFollow plays a promotion by canary, a release that does not load, a roll-back and an emptied environment; each event comes twice.
func TestFollow(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		r := newRoom(t, st)
		a, b, c := r.shelf.add(t, "binary", ""), r.shelf.add(t, "goss", ""), r.shelf.add(t, "dart", "")
		champion := func(release string, weight int64) delivery.Pointer {
			return delivery.Pointer{Role: delivery.Champion, Release: release, Weight: weight}
		}
		ctx := storetest.As("system:flow")
		state := func() []serving.Variant {
			t.Helper()
			all, err := r.Endpoints(context.Background(), "flights")
			if err != nil || len(all) > 1 {
				t.Fatal(all, err)
			}
			if len(all) == 0 {
				return nil
			}
			if !all[0].Ready {
				t.Fatalf("%+v", all)
			}
			return all[0].Variants
		}
		told := 0
		for i, step := range []struct {
			event     event.Event
			want      []serving.Variant
			activated bool
		}{
			{moved(t, "chg1", 100, champion(a, 100)), []serving.Variant{{"champion", serving.Champion, 100, a}}, true},
			{moved(t, "chg2", 10, champion(a, 90), delivery.Pointer{Role: delivery.Canary, Release: b, Weight: 10}), []serving.Variant{{"canary", serving.Canary, 10, b}, {"champion", serving.Champion, 90, a}}, true},
			{moved(t, "chg2", 100, champion(b, 100)), []serving.Variant{{"champion", serving.Champion, 100, b}}, true},
			{moved(t, "", 0, champion(b, 100), delivery.Pointer{Role: delivery.Challenger, Release: c}), []serving.Variant{{"champion", serving.Champion, 100, b}, {"challenger", serving.Shadow, 0, c}}, true},
			{moved(t, "chg3", 100, champion("sha256:none", 100)), []serving.Variant{{"champion", serving.Champion, 100, b}, {"challenger", serving.Shadow, 0, c}}, false},
			{moved(t, "chg3", 100, champion(b, 100), delivery.Pointer{Role: delivery.Challenger, Release: c}), []serving.Variant{{"champion", serving.Champion, 100, b}, {"challenger", serving.Shadow, 0, c}}, true},
			{moved(t, "chg4", 5, delivery.Pointer{Role: delivery.Canary, Release: c, Weight: 5}), []serving.Variant{{"canary", serving.Champion, 100, c}}, true},
			{moved(t, "chg5", 100), nil, false},
		} {
			for range 2 {
				if err := r.Follow(ctx, step.event); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if got := state(); !slices.Equal(got, step.want) {
					t.Fatalf("step %d: %+v, want %+v", i, got, step.want)
				}
			}
			var m delivery.Moved
			if err := json.Unmarshal(step.event.Data, &m); err != nil {
				t.Fatal(err)
			}
			got := r.events(t, "serving.activated")
			if step.activated {
				told++
				if last := got[len(got)-1]; last.Change != m.Change || last.Weight != m.Weight || !slices.Equal(last.Variants, step.want) {
					t.Errorf("step %d announced %+v", i, last)
				}
			}
			if len(got) != told {
				t.Fatalf("step %d: %d times serving.activated, want %d", i, len(got), told)
			}
		}
		failed := r.events(t, "serving.failed")
		if len(failed) != 2 || failed[0].Change != "chg3" || failed[0].Weight != 100 {
			t.Errorf("serving.failed: %+v", failed)
		}
		all, err := st.Events(context.Background(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.Type == "serving.failed" {
				var a delivery.Activation
				if err := json.Unmarshal(e.Data, &a); err != nil || !strings.Contains(a.Error, "sha256:none") || a.Change != "chg3" {
					t.Errorf("delivery reads serving.failed as %+v, %v", a, err)
				}
			}
		}
		if _, err := r.Predict(t.Context(), serving.Request{Key: key("production"), Matrix: ramp(3), Rows: 1}); !fault.Is(err, fault.NotFound) {
			t.Errorf("an emptied environment answers: %v", err)
		}
	})
}

func TestDesiredOf(t *testing.T) {
	t.Parallel()
	got := serving.DesiredOf([]delivery.Pointer{
		{Project: "p", Model: "m", Environment: "staging", Role: delivery.Champion, Release: "a", Weight: 100},
		{Project: "p", Model: "m", Environment: "production", Role: delivery.Canary, Release: "b", Weight: 25},
		{Project: "p", Model: "m", Environment: "production", Role: delivery.Champion, Release: "a", Weight: 75},
	}, serving.Key{Project: "p", Model: "n", Environment: "dev"})
	if len(got) != 3 || got[0].Model != "n" || len(got[0].Variants) != 0 || got[1].Environment != "staging" || len(got[2].Variants) != 2 || got[2].Variants[1] != (serving.Variant{Name: "champion", Role: serving.Champion, Weight: 75, Release: "a"}) {
		t.Errorf("%+v", got)
	}
}
