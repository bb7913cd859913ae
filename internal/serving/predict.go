package serving

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
)

// MaxRows is the most rows of one request.
const MaxRows = 65536

// call is one request on its way, shared with its shadows.
type call struct {
	Request
	service  *Service
	endpoint *live
	rows     int
	start    time.Time
	at       []time.Time
	lookups  map[string]Features // by feature service
}

// Predict answers every row of the request or fails as a whole. Each row goes to the variant of its unit, is scored, and is recorded before it is answered.
// The slices of the request must not be changed afterwards: the log and the shadows keep them.
//
// The caller has authorized endpoint.predict, and time.replay when Replay is set.
func (s *Service) Predict(ctx context.Context, req Request) (Response, error) {
	l := s.find(req.Key)
	if l == nil {
		return Response{}, fault.New(fault.NotFound, fmt.Sprintf("Project %q has no endpoint for model %q in environment %q.", req.Project, req.Model, req.Environment),
			"Promote a version to that environment first, or name another one as model@environment.")
	}
	defer l.release()
	c := &call{Request: req, service: s, endpoint: l, start: time.Now()}
	if c.ID == "" {
		c.ID = id.New("req")
	}
	if err := c.check(); err != nil {
		return Response{}, err
	}
	out := Response{ID: c.ID, Results: make([]Result, c.rows)}
	groups, err := c.assign()
	if err != nil {
		return Response{}, err
	}
	var all []Prediction
	for v, rows := range groups {
		if len(rows) == 0 {
			continue
		}
		predictions, err := c.score(ctx, l.variants[v], rows)
		if err != nil {
			if !fault.Is(err, fault.Invalid) && ctx.Err() == nil {
				s.failed(c.Key, l.variants[v].Release, len(rows))
			}
			return Response{}, err
		}
		for i, p := range predictions {
			out.Results[rows[i]] = Result{ID: p.ID, Variant: p.Variant, Release: p.Release, Version: l.variants[v].engine.version, Output: p.Output}
		}
		if all == nil {
			all = predictions
		} else {
			all = append(all, predictions...)
		}
	}
	if err := s.cfg.Sink.Record(ctx, all); err != nil {
		return Response{}, fault.Wrap(err, fault.Unavailable, "The prediction could not be recorded, so it is not answered.", "")
	}
	for _, v := range l.variants {
		if v.Role != Shadow || v.engine == nil || c.Release != "" {
			continue
		}
		own := *c // the lookups so far are shared, what a shadow adds is its own
		own.lookups = maps.Clone(c.lookups)
		job := shadowJob{context.WithoutCancel(ctx), &own, v}
		if c.Replay {
			s.shadows.score(job)
		} else {
			s.shadows.offer(job)
		}
	}
	return out, nil
}

// uses says whether a column is a feature of some release that answers here: with a canary, each takes its own.
func (l *live) uses(column string) bool {
	for _, v := range l.variants {
		if v.engine != nil {
			if _, ok := v.engine.columns[column]; ok {
				return true
			}
		}
	}
	return false
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// check settles rows and event times.
func (c *call) check() error {
	bad := func(field, format string, a ...any) error {
		return fault.New(fault.Invalid, fmt.Sprintf(format, a...), "").At(field)
	}
	c.rows = len(c.Entities)
	if c.Matrix != nil || c.Rows > 0 {
		if c.rows > 0 || len(c.Features) > 0 {
			return bad("inputs", "A request has either the feature matrix or entities, not both.")
		}
		c.rows = c.Rows
	}
	if c.rows < 1 {
		return bad("inputs", "The request has no rows.")
	}
	for _, n := range c.Columns {
		if !c.endpoint.uses(n) {
			return fault.New(fault.Invalid, fmt.Sprintf("No release of the endpoint has a feature %q.", clip(n)), "The endpoint's metadata lists the features.").At("inputs")
		}
	}
	if c.rows > MaxRows {
		return fault.New(fault.TooLarge, fmt.Sprintf("The request has %d rows, allowed are %d.", c.rows, MaxRows), "Send several requests.").At("inputs")
	}
	if len(c.Features) != 0 && len(c.Features) != c.rows {
		return bad("features", "There are request features for %d rows and entities for %d.", len(c.Features), c.rows)
	}
	if len(c.Units) > 1 && len(c.Units) != c.rows {
		return bad("unit", "There are %d units for %d rows: give one for each or one for all.", len(c.Units), c.rows)
	}
	if len(c.At) > 0 && !c.Replay {
		return fault.New(fault.Denied, "Setting event time (at) needs the right time.replay.", "Leave `at` out, or ask a project admin for the role replayer.").At("at")
	}
	switch len(c.At) {
	case 0:
		c.at = slices.Repeat([]time.Time{c.start.UTC()}, c.rows)
	case 1:
		c.at = slices.Repeat(c.At, c.rows)
	case c.rows:
		c.at = c.At
	default:
		return bad("at", "There are %d event times for %d rows: give one for each or one for all.", len(c.At), c.rows)
	}
	for _, t := range c.at {
		if t.IsZero() || t.Year() < 1 || t.Year() > 9999 {
			return bad("at", "An event time is empty or out of range.")
		}
	}
	return nil
}

// unit is the sticky key of a row.
func (c *call) unit(row int) string {
	switch {
	case len(c.Units) == 1:
		return c.Units[0]
	case len(c.Units) > 1:
		return c.Units[row]
	case c.Entities != nil:
		return EntityKey(c.Entities[row])
	}
	return c.ID
}

// EntityKey is the canonical text of an entity row: the value itself when there is one key, else name=value in the order of the names.
func EntityKey(entity map[string]any) string {
	if len(entity) == 1 {
		for _, v := range entity {
			return fmt.Sprint(v)
		}
	}
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(entity)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s=%v", k, entity[k])
	}
	return b.String()
}

// assign deals the rows out to the variants: the result has the rows of each variant of the endpoint.
func (c *call) assign() ([][]int, error) {
	l := c.endpoint
	groups := make([][]int, len(l.variants))
	if c.Release != "" {
		for i, v := range l.variants {
			if v.engine != nil && (v.Release == c.Release || v.engine.release.Version == c.Release) {
				for r := range c.rows {
					groups[i] = append(groups[i], r)
				}
				return groups, nil
			}
		}
		return nil, fault.New(fault.NotFound, fmt.Sprintf("Endpoint %s does not serve version %q.", l.Key, c.Release), "The endpoint's metadata lists its versions; without a version the traffic split decides.")
	}
	for r := range c.rows {
		at := bucket(l.Key, c.unit(r))
		i := 0
		for ; at >= l.variants[i].Weight; i++ {
			at -= l.variants[i].Weight
		}
		groups[i] = append(groups[i], r)
	}
	return groups, nil
}

// score gives the predictions of some rows by one variant, in their order.
func (c *call) score(ctx context.Context, v *variant, rows []int) ([]Prediction, error) {
	if v.engine == nil {
		return nil, fault.Wrap(v.problem, fault.Unavailable, fault.From(v.problem).Public, fault.From(v.problem).Next)
	}
	e := v.engine
	x, digests, err := c.features(ctx, e, rows)
	if err != nil {
		return nil, err
	}
	out, err := e.Predict(ctx, x, len(rows))
	if err != nil {
		return nil, err
	}
	if len(out) != len(rows)*e.outputs {
		return nil, fault.Newf(fault.Internal, "Release %s gave %d values for %d rows, expected %d each.", short(v.Release), len(out), len(rows), e.outputs)
	}
	if !finite(out) {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("Release %s answers these features with a value that is not a finite number.", short(v.Release)), "Check the request's values; the answer is not given and not recorded.")
	}
	latency := time.Since(c.start)
	width := len(e.features)
	predictions := make([]Prediction, len(rows))
	type same struct {
		unit string
		at   int64
	}
	seen := map[same]int{}
	for i, r := range rows {
		// A request that is sent again, because its answer got lost, is logged once: its answer must name what is logged.
		k := same{c.unit(r), c.at[r].UnixMicro()}
		own := id.Of("prd", c.Project, c.Model, c.Environment, c.ID, v.Release, v.Name, k.unit, strconv.FormatInt(k.at, 10), strconv.Itoa(seen[k]))
		seen[k]++
		p := Prediction{ID: own, RequestID: c.ID, Project: c.Project, Model: c.Model, Environment: c.Environment, Variant: v.Name, Release: v.Release,
			Unit: k.unit, At: c.at[r], Features: x[i*width : (i+1)*width : (i+1)*width], Output: out[i*e.outputs : (i+1)*e.outputs : (i+1)*e.outputs], Latency: latency, Shadow: v.Role == Shadow}
		if c.Entities != nil {
			p.Entity = c.Entities[r]
		}
		if digests != nil {
			p.FeaturesDigest = digests[i]
		} else {
			p.FeaturesDigest = digest(p.Features)
		}
		predictions[i] = p
	}
	return predictions, nil
}

// features gives the rows' features in the order of the engine's columns, and their digests when a lookup gave them.
func (c *call) features(ctx context.Context, e *engine, rows []int) ([]float64, []string, error) {
	if c.Entities == nil {
		x, err := c.pick(c.Columns, c.Matrix, e, rows)
		return x, nil, err
	}
	if e.release.Service == "" {
		return nil, nil, fault.New(fault.Invalid, fmt.Sprintf("Release %s has no feature service, so it cannot be asked by entity.", short(e.release.Digest)), "Send the feature matrix.").At("inputs")
	}
	f, ok := c.lookups[e.release.Service]
	if !ok {
		var err error
		if f, err = c.service.cfg.Features.Lookup(ctx, c.Project, e.release.Service, c.Entities, c.at, c.Request.Features); err != nil {
			return nil, nil, err
		}
		if len(f.Values) != c.rows*len(f.Names) || len(f.Digests) != c.rows {
			return nil, nil, fault.Newf(fault.Internal, "The lookup of feature service %q gave %d values and %d digests for %d rows of %d features.", e.release.Service, len(f.Values), len(f.Digests), c.rows, len(f.Names))
		}
		if c.lookups == nil {
			c.lookups = map[string]Features{}
		}
		c.lookups[e.release.Service] = f
	}
	x, err := c.pick(f.Names, f.Values, e, rows)
	if err != nil {
		return nil, nil, err
	}
	if len(rows) == c.rows {
		return x, f.Digests, nil
	}
	digests := make([]string, len(rows))
	for i, r := range rows {
		digests[i] = f.Digests[r]
	}
	return x, digests, nil
}

// pick takes rows and columns of a matrix in the order of the engine. It copies nothing when the matrix is so already.
func (c *call) pick(names []string, values []float64, e *engine, rows []int) ([]float64, error) {
	width := len(e.features)
	if len(names) == 0 {
		if len(values) != c.rows*width {
			return nil, fault.New(fault.Invalid, fmt.Sprintf("The matrix has %d values; %d rows of the model's %d features need %d.", len(values), c.rows, width, c.rows*width),
				"The endpoint's metadata lists the features; name the columns or send them all in that order.").At("inputs")
		}
		names = e.features
	}
	if len(values) != c.rows*len(names) {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("The matrix has %d values for %d rows of %d columns.", len(values), c.rows, len(names)), "").At("inputs")
	}
	if len(rows) == c.rows && slices.Equal(names, e.features) {
		return values, nil
	}
	from := make([]int, width)
	for i := range from {
		from[i] = -1
	}
	for i, n := range names {
		at, ok := e.columns[n]
		if !ok {
			continue // a feature that this release does not use
		}
		if from[at] >= 0 {
			return nil, fault.New(fault.Invalid, fmt.Sprintf("Feature %q is given twice.", n), "").At(n)
		}
		from[at] = i
	}
	for i, at := range from {
		if at < 0 {
			return nil, fault.New(fault.Invalid, fmt.Sprintf("Feature %q of release %s is not given.", e.features[i], short(e.release.Digest)), "The endpoint's metadata lists the features.").At(e.features[i])
		}
	}
	out := make([]float64, len(rows)*width)
	for i, r := range rows {
		for j, at := range from {
			out[i*width+j] = values[r*len(names)+at]
		}
	}
	return out, nil
}

// digest is the SHA-256 of the values' 8 little-endian bytes each, as the log names a row of features that came with the request.
func digest(values []float64) string {
	buf := make([]byte, 0, 512)
	for _, v := range values {
		buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(v))
	}
	sum := sha256.Sum256(buf)
	return hex.EncodeToString(sum[:])
}
