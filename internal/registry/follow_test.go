package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/event"
	"falaj/internal/registry"
)

func TestFollowShowsWhatDeliveryDecided(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, w world) {
		must[registry.Model](t)(w.CreateModel(ctx, "flights", registry.NewModel{Name: "delay"}))
		for i := range 3 {
			must[registry.Version](t)(w.CreateVersion(ctx, "flights", registry.NewVersion{Model: "delay", Source: fmt.Sprintf("s3://b/%d", i)}))
		}
		move := func(environment string, champion int64) {
			t.Helper()
			data := map[string]any{"model": "delay", "environment": environment, "change": "chg_1", "pointers": []any{map[string]any{"environment": environment, "role": "canary", "version": 3, "actor": "user:amal"}}}
			if champion > 0 {
				data["pointers"] = append(data["pointers"].([]any), map[string]any{"environment": environment, "role": "champion", "version": champion, "actor": "user:amal"})
			}
			b, err := json.Marshal(data)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // events come at least once
				if err := w.Follow(context.Background(), event.Event{Type: "delivery.moved", Project: "flights", Data: b}); err != nil {
					t.Fatal(err)
				}
			}
		}
		state := func() string {
			m := must[registry.Model](t)(w.Model(ctx, "flights", "delay"))
			s := ""
			for _, a := range m.Aliases {
				s += fmt.Sprintf("%s=%d ", a.Name, a.Version)
			}
			for n := int64(1); n <= 3; n++ {
				s += must[registry.Version](t)(w.Version(ctx, "flights", "delay", n)).Stage + " "
			}
			return s
		}
		for _, step := range []struct {
			environment string
			champion    int64
			want        string
		}{
			{"staging", 1, "staging=1 Staging None None "},
			{"production", 1, "champion=1 production=1 staging=1 Production None None "},
			{"staging", 2, "champion=1 production=1 staging=2 Production Staging None "},
			{"production", 2, "champion=2 production=2 staging=2 Archived Production None "},
			{"production", 1, "champion=1 production=1 staging=2 Production Archived None "},
			{"production", 0, "staging=2 Production Archived None "},
		} {
			move(step.environment, step.champion)
			if d := cmp.Diff(step.want, state()); d != "" {
				t.Errorf("%s=%d: %s", step.environment, step.champion, d)
			}
		}
		history := must[[]registry.PointerMove](t)(w.PointerHistory(ctx, "flights", "delay", "production"))
		var got []string
		for _, h := range history {
			got = append(got, fmt.Sprintf("%s %d->%d %s %s", h.Kind, h.From, h.To, h.Actor, h.Change))
		}
		want := []string{"alias 1->0 system:delivery chg_1", "alias 2->1 user:amal chg_1", "alias 1->2 user:amal chg_1", "alias 0->1 user:amal chg_1"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}
