package monitoring

import (
	"context"
	"fmt"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/who"
	"falaj/internal/serving"
	"falaj/internal/store"
)

// lateness is how long a window waits for predictions that come out of order before its drift is judged.
const lateness = time.Hour

// monday is where windows are counted from: a window of weeks starts on a Monday in UTC.
func monday() time.Time { return time.Date(1970, 1, 5, 0, 0, 0, 0, time.UTC) }

// aligned is the window of the given width that holds at.
func aligned(at time.Time, width time.Duration) Window {
	// In microseconds: a time.Duration spans only 292 years.
	us, w := at.UnixMicro()-monday().UnixMicro(), width.Microseconds()
	n := us / w
	if us < 0 && us%w != 0 {
		n--
	}
	from := time.UnixMicro(monday().UnixMicro() + n*w).UTC()
	return Window{from, from.Add(width)}
}

// Evaluate judges every window that is complete and was not judged: of one model, or with model "" of the project, or
// with project "" of all. It runs by itself when labels or a new day of event time arrive; calling it only waits for it.
func (s *Service) Evaluate(ctx context.Context, project, model string) error {
	ctx = who.AsSystem(ctx, "monitoring")
	s.judge.Lock()
	defer s.judge.Unlock()
	var keys []Key
	err := s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		keys, err = selectMonitored(ctx, q, project, model)
		return err
	})
	if err != nil {
		return err
	}
	for _, k := range keys {
		m, err := s.Monitor(ctx, k)
		if err != nil {
			return err
		}
		events, labels, err := s.Watermarks(ctx, k.Project, k.Model)
		if err != nil {
			return err
		}
		if !m.Quality.Off {
			if err := s.due(ctx, k, kindQuality, m.Quality.Window, labels.Add(-m.Quality.LabelsAfter), func(w Window) error { return s.judgeQuality(ctx, k, m, w) }); err != nil {
				return err
			}
		}
		if !m.Drift.Off {
			if err := s.due(ctx, k, kindDrift, m.Drift.Window, events.Add(-lateness), func(w Window) error { return s.judgeDrift(ctx, k, m, w) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// due calls judge for each window that holds predictions, ends at or before through, and comes after the last judged one.
func (s *Service) due(ctx context.Context, k Key, kind string, width time.Duration, through time.Time, judge func(Window) error) error {
	var end int64
	err := s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		end, err = lastWindowEnd(ctx, q, k, kind)
		return err
	})
	if err != nil {
		return err
	}
	from := store.Time(end)
	if end == 0 {
		from = time.UnixMicro(-1 << 60)
	}
	for {
		at, ok, err := s.log.first(ctx, k, from)
		if err != nil || !ok {
			return err
		}
		w := aligned(at, width)
		if w.From.Before(store.Time(end)) && end != 0 { // the width was changed: start where the last one ended
			w = Window{store.Time(end), w.To}
		}
		if w.To.After(through) {
			return nil
		}
		if err := judge(w); err != nil {
			return err
		}
		from = w.To
	}
}

// served splits rows into what callers were given and what shadows said, with the newest release of each.
func served(rows []serving.Prediction) (champion, challenger string) {
	var c, s *serving.Prediction
	for i := range rows {
		p := &rows[i]
		switch {
		case p.Shadow:
			if s == nil || p.At.After(s.At) {
				s = p
			}
		case c == nil, (p.Variant == string(serving.Champion)) != (c.Variant == string(serving.Champion)) && p.Variant == string(serving.Champion):
			c = p
		case p.Variant == c.Variant && p.At.After(c.At):
			c = p
		}
	}
	if c != nil {
		champion = c.Release
	}
	if s != nil && s.Release != champion {
		challenger = s.Release
	}
	return champion, challenger
}

// quality measures a window; deadline is when labels stop to count.
func (s *Service) quality(ctx context.Context, k Key, m QualityMonitor, w Window, deadline time.Time) (*QualityWindow, error) {
	rows, err := s.log.Rows(ctx, k, w)
	if err != nil {
		return nil, err
	}
	labels, err := s.labels(ctx, k.Project, k.Model, w.From, deadline)
	if err != nil {
		return nil, err
	}
	out := &QualityWindow{Key: k, Window: w, Metric: m.Metric, MinGap: m.MinGap, ByRelease: map[string]QualityFigures{}}
	out.Champion, out.Challenger = served(rows)
	all, unmatched := join(w, rows, labels)
	out.Unmatched = unmatched
	by := map[string][]Scored{}
	var pairs []Pair
	for _, a := range all {
		mine := a.row != nil && a.row.Release == out.Champion
		if mine {
			out.Rows++
			if !a.labelled {
				out.Unlabelled++
			}
		}
		if !a.labelled {
			continue
		}
		for release, score := range a.scores {
			by[release] = append(by[release], Scored{score, a.label})
		}
		if mine {
			out.Labels++
			if theirs, ok := a.scores[out.Challenger]; ok && out.Challenger != "" {
				pairs = append(pairs, Pair{a.scores[out.Champion], theirs, a.label})
			}
		}
	}
	for release, scored := range by {
		out.ByRelease[release] = Measure(scored)
	}
	out.ChampionFacts = Measure(by[out.Champion])
	out.Verdict = VerdictNoChallenger
	if out.Challenger != "" {
		gap := Compare(m.Metric, pairs)
		own := out.ByRelease[out.Challenger]
		out.Gap, out.ChallengerOwn = &gap, &own
		switch {
		case gap.Rows < m.MinLabels || !gap.Lower.Defined():
			out.Verdict = VerdictFewLabels
		case gap.Lower.Value > m.MinGap:
			out.Verdict = VerdictDegraded
		default:
			out.Verdict = VerdictOK
		}
	}
	if out.Labels < m.MinLabels {
		out.Verdict = VerdictFewLabels
	}
	return out, nil
}

func (s *Service) judgeQuality(ctx context.Context, k Key, m Monitor, w Window) error {
	deadline := w.To.Add(m.Quality.LabelsAfter)
	q, err := s.quality(ctx, k, m.Quality, w, deadline)
	if err != nil {
		return err
	}
	var alerts []Alert
	if q.Verdict == VerdictDegraded {
		alerts = append(alerts, newAlert(k, QualityDegraded, w, deadline,
			fmt.Sprintf("%s of release %s is %.4f; challenger %s is better by %.4f, at least by %.4f, and the monitor allows %.4f.",
				q.Metric, shortDigest(q.Champion), q.Gap.A.Value, shortDigest(q.Challenger), q.Gap.Diff.Value, q.Gap.Lower.Value, q.MinGap),
			map[string]any{"metric": q.Metric, "gap": q.Gap.Diff.Value, "gap_low": q.Gap.Lower.Value, "gap_high": q.Gap.Upper.Value, "min_gap": q.MinGap, "champion": q.Champion, "challenger": q.Challenger,
				"champion_value": q.Gap.A.Value, "challenger_value": q.Gap.B.Value, "rows": q.Gap.Rows}))
	}
	var good []string
	if q.Verdict == VerdictOK {
		good = []string{QualityDegraded}
	}
	return s.record(ctx, k, kindQuality, w, q.Verdict, q, deadline, alerts, good)
}

func shortDigest(d string) string {
	if len(d) > 19 {
		return d[:19]
	}
	return d
}

// drift measures a window of the newest release against its own training profile.
func (s *Service) drift(ctx context.Context, k Key, m DriftMonitor, w Window) (*DriftWindow, error) {
	rows, err := s.log.Rows(ctx, k, w)
	if err != nil {
		return nil, err
	}
	out := &DriftWindow{Key: k, Window: w, Threshold: m.Threshold, Weigh: m.Weigh}
	out.Release, _ = served(rows)
	var ref Reference
	box, err := s.blobs.Box(ctx, k.Project)
	if err != nil {
		return nil, err
	}
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		ref, err = selectReference(ctx, q, box, k.Project, out.Release)
		return err
	})
	missing := store.NotFound(err)
	if err != nil && !missing {
		return nil, err
	}
	columns := make([][]float64, len(ref.Profile.Features))
	for i := range rows {
		p := &rows[i]
		if p.Shadow || p.Release != out.Release {
			continue
		}
		out.Rows++
		if hasNull(p.Features) {
			out.NullRows++
		}
		missing = missing || len(p.Features) != len(columns)
		for c := range min(len(columns), len(p.Features)) {
			columns[c] = append(columns[c], p.Features[c])
		}
	}
	importance := ref.Importance
	if m.Weigh == WeighEqual {
		importance = nil
	}
	out.Figures = MeasureDrift(m.Method, ref.Profile, columns, importance)
	for _, f := range out.Figures.Features {
		if f.Weight > 0 && f.WindowNull.Value-f.ReferenceNull.Value > m.MissingBy {
			out.Missing = append(out.Missing, f.Name)
		}
	}
	switch {
	case missing:
		out.Verdict, out.Missing = VerdictNoReference, nil
	case out.Rows < m.MinRows || !out.Figures.Score.Defined():
		out.Verdict, out.Missing = VerdictFewRows, nil
	case out.Figures.Score.Value > m.Threshold:
		out.Verdict = VerdictDrifted
	default:
		out.Verdict = VerdictOK
	}
	return out, nil
}

func (s *Service) judgeDrift(ctx context.Context, k Key, m Monitor, w Window) error {
	d, err := s.drift(ctx, k, m.Drift, w)
	if err != nil {
		return err
	}
	at := w.To.Add(lateness)
	var alerts []Alert
	if d.Verdict == VerdictDrifted {
		worst := d.Figures.Worst()
		alerts = append(alerts, newAlert(k, DriftDetected, w, at,
			fmt.Sprintf("Features drifted from training: the %s score weighed by %s is %.4f and the monitor allows %.4f; %s moved most.", d.Figures.Method, d.Weigh, d.Figures.Score.Value, d.Threshold, worst),
			map[string]any{"weighted": d.Figures.Score.Value, "threshold": d.Threshold, "feature": worst, "method": d.Figures.Method, "release": d.Release, "rows": d.Rows}))
	}
	if len(d.Missing) > 0 {
		alerts = append(alerts, newAlert(k, FeaturesMissing, w, at,
			fmt.Sprintf("Features are missing more often than in training: %v.", d.Missing), map[string]any{"features": d.Missing, "release": d.Release, "rows": d.Rows}))
	}
	var good []string
	if d.Verdict == VerdictOK {
		good = append(good, DriftDetected)
	}
	if (d.Verdict == VerdictOK || d.Verdict == VerdictDrifted) && len(d.Missing) == 0 {
		good = append(good, FeaturesMissing)
	}
	return s.record(ctx, k, kindDrift, w, d.Verdict, d, at, alerts, good)
}

func newAlert(k Key, kind string, w Window, at time.Time, text string, args map[string]any) Alert {
	return Alert{ID: id.New("alr"), Kind: kind, State: AlertOpen, Key: k, Window: w, At: at, Text: text, Args: args, Created: time.Now().UTC().Truncate(time.Microsecond)}
}

// record keeps a judged window, raises its alerts with their events and resolves earlier ones, in one change. When
// another process was faster nothing is raised twice.
func (s *Service) record(ctx context.Context, k Key, kind string, w Window, verdict string, doc any, at time.Time, alerts []Alert, good []string) error {
	text, err := document(doc)
	if err != nil {
		return err
	}
	err = s.db.Change(ctx, "model.monitor", k.resource("monitor"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertWindow(ctx, tx, k, kind, w, verdict, text); err != nil {
			return event.Draft{}, err
		}
		tx.After(text)
		for _, a := range alerts {
			if err := s.raise(ctx, a); err != nil {
				return event.Draft{}, err
			}
		}
		for _, g := range good {
			if _, err := resolveAlerts(ctx, tx, k, g, store.Micros(w.From)); err != nil {
				return event.Draft{}, err
			}
		}
		return event.Draft{Type: kind + ".measured", Subject: k.Model, At: at, Data: map[string]any{"key": k, "window": w, "verdict": verdict}}, nil
	})
	if store.Unique(err) {
		return nil
	}
	return err
}

// raise is a change of its own inside the window's: alert row, ledger row and the event that starts a retraining.
func (s *Service) raise(ctx context.Context, a Alert) error {
	res := a.Key.resource("alert")
	return s.db.Change(ctx, "alert.raise", res, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		fresh, err := insertAlert(ctx, tx, a)
		if err != nil {
			return event.Draft{}, err
		}
		tx.After(a)
		if !fresh {
			return event.Draft{}, nil
		}
		return event.Draft{Type: a.Kind, Subject: a.Model, Data: a, At: a.At}, nil
	})
}
