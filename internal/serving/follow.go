package serving

import (
	"context"
	"encoding/json"

	"falaj/internal/delivery"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Moved are the event types that Follow wants.
func Moved() []string { return []string{"delivery.moved"} }

// Follow brings an endpoint to what delivery decided. It is idempotent: app subscribes it to Moved.
// A release that does not load is answered by the event serving.failed with the reason, and what served before goes on serving.
func (s *Service) Follow(ctx context.Context, e event.Event) error {
	var m delivery.Moved
	if err := json.Unmarshal(e.Data, &m); err != nil {
		return err
	}
	ctx = who.AsSystem(ctx, "serving")
	k := Key{e.Project, m.Model, m.Environment}
	for _, d := range DesiredOf(m.Pointers, k) {
		if len(d.Variants) == 0 {
			return s.Remove(ctx, k)
		}
		var why *cause
		if m.Change != "" {
			why = &cause{m.Change, m.Weight}
		}
		_, err := s.configure(ctx, k, d.Variants, why)
		if err == nil {
			return nil
		}
		s.log.Error("delivery's move was not followed", "endpoint", k.String(), "change", m.Change, "err", err)
		if fault.Is(err, fault.Internal) || ctx.Err() != nil {
			return err // the relay tries again
		}
		return s.cfg.Store.Change(ctx, "endpoint.activate", resource(k), func(context.Context, *store.Tx) (event.Draft, error) {
			return event.Draft{Type: "serving.failed", Subject: subject(k), Data: Failed{k.Model, k.Environment, m.Change, m.Weight, fault.From(err).Public}}, nil
		})
	}
	return nil
}

// Failed is the data of the event serving.failed: delivery's move could not be followed, traffic is as before.
type Failed struct {
	Model       string `json:"model"`
	Environment string `json:"environment"`
	Change      string `json:"change"`
	Weight      int64  `json:"weight"`
	Error       string `json:"error"`
}

// DesiredOf turns delivery's pointers into endpoints, for Reconcile. Each key in also is in the result, without variants when no pointer names it.
// A canary without a champion takes all the traffic.
func DesiredOf(pointers []delivery.Pointer, also ...Key) []Desired {
	var out []Desired
	at := map[Key]int{}
	find := func(k Key) *Desired {
		i, ok := at[k]
		if !ok {
			i, at[k] = len(out), len(out)
			out = append(out, Desired{Key: k})
		}
		return &out[i]
	}
	for _, k := range also {
		find(k)
	}
	for _, p := range pointers {
		d := find(Key{p.Project, p.Model, p.Environment})
		v := Variant{Name: p.Role, Release: p.Release, Weight: int(p.Weight)}
		switch p.Role {
		case delivery.Champion:
			v.Role = Champion
		case delivery.Canary:
			v.Role = Canary
		default:
			v.Role, v.Weight = Shadow, 0
		}
		d.Variants = append(d.Variants, v)
	}
	for i := range out {
		settle(out[i].Variants)
	}
	return out
}

// settle gives the traffic that nobody was given to the champion.
func settle(variants []Variant) {
	champion, canaries := -1, 0
	for i, v := range variants {
		switch v.Role {
		case Champion:
			champion = i
		case Canary:
			canaries += v.Weight
		}
	}
	for i := range variants {
		if champion < 0 && variants[i].Role == Canary {
			variants[i].Role, champion = Champion, i
			canaries -= variants[i].Weight
		}
	}
	if champion >= 0 {
		variants[champion].Weight = 100 - canaries
	}
}
