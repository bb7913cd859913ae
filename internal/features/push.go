package features

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/store"
)

// put stores sealed rows of a view, dropping what the cache knew of their entities.
func (s *Service) put(ctx context.Context, table string, versions []Version) error {
	done := s.cache(table).writing(versions)
	defer done()
	return s.online.Put(ctx, table, versions)
}

// Push writes rows of a view to the online store at once, durable when it returns. It is high-rate data: authorized, but no ledger row
// for each. Only the replay right may set times; without it they must be zero, which means now.
func (s *Service) Push(ctx context.Context, project, view string, rows []PushRow) error {
	if err := s.mayPush(ctx, project, view, rows); err != nil {
		return err
	}
	name, dg := splitRef(view)
	v, dg, err := s.view(ctx, project, name, dg)
	if err != nil {
		return err
	}
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return err
	}
	table, now := onlineTable(project, v.Name, dg), time.Now()
	versions := make([]Version, len(rows))
	for i, r := range rows {
		key, err := keyOf(v, r.Entity, i)
		if err != nil {
			return err
		}
		if r.Event.IsZero() {
			r.Event = now
		}
		if r.Known.IsZero() {
			r.Known = r.Event
		}
		values := make([]float64, len(v.Columns))
		for j, c := range v.Columns {
			if values[j], err = number(r.Values[c]); err != nil {
				return fault.New(fault.Invalid, fmt.Sprintf("Feature '%s' of row %d is not a number, a boolean or null.", c, i+1), "").At(c)
			}
		}
		for c := range r.Values {
			if !slices.Contains(v.Columns, c) {
				return invalid(c, "View %s has no feature '%s'; it has %s.", v.Name, c, strings.Join(v.Columns, ", "))
			}
		}
		versions[i] = Version{Key: key, Event: r.Event.UnixMicro(), Known: r.Known.UnixMicro()}
		if err := sealValues(box, table, &versions[i], values); err != nil {
			return err
		}
	}
	return s.put(ctx, table, versions)
}

func (s *Service) mayPush(ctx context.Context, project, view string, rows []PushRow) error {
	res := resource(project, "feature_view", view)
	actions := []policy.Action{"feature.push"}
	if slices.ContainsFunc(rows, func(r PushRow) bool { return !r.Event.IsZero() || !r.Known.IsZero() }) {
		actions = append(actions, "time.replay")
	}
	for _, a := range actions {
		if dec, err := s.db.Authorize(ctx, a, res); err != nil || !dec.Allow {
			return s.refuse(ctx, a, res, dec, err)
		}
	}
	return nil
}

// refuse records a refusal that has no change to ride on and gives its fault.
func (s *Service) refuse(ctx context.Context, a policy.Action, res policy.Resource, dec policy.Decision, err error) error {
	if err != nil {
		return err
	}
	if err := s.db.Deny(ctx, a, res, dec); err != nil {
		return err
	}
	return store.Denied(ctx, a, res, dec)
}

func number(v any) (float64, error) {
	c, err := coerce(v, Number)
	if err != nil {
		return 0, err
	}
	f, ok := columnNode{"v"}.eval(Row{"v": c})
	if !ok {
		return math.NaN(), nil
	}
	return f, nil
}
