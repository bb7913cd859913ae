package features

import (
	"context"
	"maps"
	"math"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

func (s *Service) cache(table string) *cache {
	s.mu.RLock()
	c := s.caches[table]
	s.mu.RUnlock()
	if c != nil {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caches[table] == nil {
		s.caches[table] = newCache()
	}
	return s.caches[table]
}

// Online gives one vector for each row: what was known of its entities at req.At, and the request features.
// The caller has authorized it. A key column that is missing or a request column of another type is refused.
func (s *Service) Online(ctx context.Context, req OnlineRequest) (*OnlineResult, error) {
	p, err := s.plan(ctx, req.Project, req.Service)
	if err != nil {
		return nil, err
	}
	at, err := instants(req)
	if err != nil {
		return nil, err
	}
	res := &OnlineResult{Service: p.info.Ref(), Features: p.info.Features, Rows: make([]Vector, len(req.Rows))}
	found := make([][]answer, len(p.views))
	for i := range p.views {
		if found[i], err = s.lookup(ctx, req.Project, &p.views[i], req.Rows, at); err != nil {
			return nil, err
		}
	}
	for i, row := range req.Rows {
		in, err := p.requestRow(row, i)
		if err != nil {
			return nil, err
		}
		v := Vector{Values: make([]float64, len(p.slots)), Statuses: make([]Status, len(p.slots)), EventTimes: make([]time.Time, len(p.slots))}
		for j, sl := range p.slots {
			if sl.view < 0 {
				v.Values[j], v.Statuses[j] = sl.expr.Eval(in), Present
			} else {
				v.Values[j], v.Statuses[j], v.EventTimes[j] = read(&p.views[sl.view], found[sl.view][i], sl.column, at[i])
			}
			if math.IsNaN(v.Values[j]) && v.Statuses[j] == Present {
				v.Statuses[j] = NullValue
			}
		}
		v.Digest = VectorDigest(p.info.Digest, v.Values)
		res.Rows[i] = v
	}
	return res, nil
}

// instants gives the event time of each row in microseconds.
func instants(req OnlineRequest) ([]int64, error) {
	if n := len(req.At); n > 1 && n != len(req.Rows) {
		return nil, fault.Newf(fault.Invalid, "There are %d event times for %d rows: give one for each, one for all, or none.", n, len(req.Rows)).At("at")
	}
	out, now := make([]int64, len(req.Rows)), time.Now()
	for i := range out {
		at := now
		if len(req.At) > 0 && !req.At[min(i, len(req.At)-1)].IsZero() {
			at = req.At[min(i, len(req.At)-1)]
		}
		out[i] = at.UnixMicro()
	}
	return out, nil
}

// Lookup is Online in the shape that a model server asks: names, a row-major matrix of values (NaN is null) and a digest
// for each row. request is nil or gives the request columns of each entity row.
func (s *Service) Lookup(ctx context.Context, project, service string, entities []map[string]any, at []time.Time, request []map[string]any) (names []string, values []float64, digests []string, err error) {
	rows := entities
	if len(request) > 0 {
		if len(request) != len(entities) {
			return nil, nil, nil, fault.Newf(fault.Invalid, "There are request features for %d rows and %d entity rows.", len(request), len(entities)).At("features")
		}
		rows = make([]map[string]any, len(entities))
		for i := range rows { // a key is what the entity says, whatever the request repeats
			rows[i] = maps.Clone(request[i])
			if rows[i] == nil {
				rows[i] = map[string]any{}
			}
			maps.Copy(rows[i], entities[i])
		}
	}
	res, err := s.Online(ctx, OnlineRequest{Project: project, Service: service, Rows: rows, At: at})
	if err != nil {
		return nil, nil, nil, err
	}
	values, digests = make([]float64, 0, len(rows)*len(res.Features)), make([]string, len(rows))
	for i, v := range res.Rows {
		values, digests[i] = append(values, v.Values...), v.Digest
	}
	return res.Features, values, digests, nil
}

func read(v *planView, a answer, column int, at int64) (float64, Status, time.Time) {
	if !a.ok {
		return math.NaN(), NotFound, time.Time{}
	}
	when := store.Time(a.event)
	if v.TTL > 0 && at-a.event > v.TTL.Microseconds() {
		return math.NaN(), OutsideTTL, when
	}
	return a.values[column], Present, when
}

// lookup answers one view for all rows: from the cache, and the rest in one read of the store.
func (s *Service) lookup(ctx context.Context, project string, v *planView, rows []map[string]any, at []int64) ([]answer, error) {
	c := s.cache(v.table)
	out := make([]answer, len(rows))
	var missing []Ask
	var where []int
	for i, row := range rows {
		k, err := keyOf(v.View, row, i)
		if err != nil {
			return nil, err
		}
		a, ok := c.get(k, at[i])
		if !ok {
			missing, where = append(missing, Ask{k, at[i]}), append(where, i)
			continue
		}
		out[i] = a
	}
	if len(missing) == 0 {
		return out, nil
	}
	ticket := c.ticket()
	found, err := s.online.At(ctx, v.table, missing)
	if err != nil {
		return nil, err
	}
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return nil, err
	}
	for n, f := range found {
		// The winner at `at` won from the moment it became visible; and where nothing is visible, nothing was before.
		a := answer{ok: f.OK, event: f.Event, since: math.MinInt64, until: f.Until}
		if f.OK {
			a.since = max(f.Event, f.Known)
			if a.values, err = openValues(box, v.table, missing[n].Key, f.Event, f.Known, f.Sealed, len(v.Columns)); err != nil {
				return nil, err
			}
		}
		c.keep(ticket, missing[n].Key, a)
		out[where[n]] = a
	}
	return out, nil
}
