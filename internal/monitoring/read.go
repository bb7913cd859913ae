package monitoring

import (
	"context"
	"fmt"
	"slices"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/serving"
	"falaj/internal/store"
)

// Quality lists the newest n judged windows of a key, oldest first.
func (s *Service) Quality(ctx context.Context, k Key, n int) (out []QualityWindow, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		out, err = selectWindows[QualityWindow](ctx, q, k, kindQuality, n)
		return err
	})
	return out, err
}

// Drift lists the newest n judged windows of a key, oldest first.
func (s *Service) Drift(ctx context.Context, k Key, n int) (out []DriftWindow, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		out, err = selectWindows[DriftWindow](ctx, q, k, kindDrift, n)
		return err
	})
	return out, err
}

// Alerts lists the newest n, newest first. Model and environment "" take all, state "" too.
func (s *Service) Alerts(ctx context.Context, k Key, state string, n int) (out []Alert, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		out, err = selectAlerts(ctx, q, k, state, n)
		return err
	})
	return out, err
}

// Acknowledge says that a person knows of an open alert.
func (s *Service) Acknowledge(ctx context.Context, project, alert string) (a Alert, err error) {
	err = s.db.Change(ctx, "alert.acknowledge", policy.Resource{Kind: "alert", ID: alert, Project: project}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		var err error
		if a, err = selectAlert(ctx, tx, project, alert); err != nil {
			return event.Draft{}, store.One(err, fmt.Sprintf("alert '%s'", alert))
		}
		n, err := setAlertState(ctx, tx, project, alert, AlertAcknowledged)
		if err != nil {
			return event.Draft{}, err
		}
		if n == 0 {
			return event.Draft{}, fault.Newf(fault.Conflict, "Alert %s is %s already.", alert, a.State)
		}
		tx.Before(a)
		a.State = AlertAcknowledged
		tx.After(a)
		return event.Draft{Type: "alert.acknowledged", Subject: a.Model, Data: a}, nil
	})
	return a, err
}

// LabelsPushed counts the labels pushed for a model so far; one pushed again counts again.
func (s *Service) LabelsPushed(ctx context.Context, project, model string) (n int64, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		n, err = countLabels(ctx, q, project, model)
		return err
	})
	return n, err
}

// Predictions gives what was logged under an id or a request id: rows given to the caller first, then shadows.
func (s *Service) Predictions(ctx context.Context, project, id string) ([]serving.Prediction, error) {
	out, err := s.log.Find(ctx, project, id)
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fault.New(fault.NotFound, fmt.Sprintf("There is no prediction '%s' in project '%s'.", id, project), "Give the id of a prediction or of its request, as the answer held it.")
	}
	slices.SortStableFunc(out, func(a, b serving.Prediction) int { return boolInt(a.Shadow) - boolInt(b.Shadow) })
	return out, nil
}

// NewestLabelledWindow is the newest judged window of a key with enough labels; fault.NotFound when there is none yet.
func (s *Service) NewestLabelledWindow(ctx context.Context, k Key) (Window, error) {
	if err := s.Evaluate(ctx, k.Project, k.Model); err != nil {
		return Window{}, err
	}
	windows, err := s.Quality(ctx, k, 1000)
	if err != nil {
		return Window{}, err
	}
	for i := len(windows) - 1; i >= 0; i-- {
		if windows[i].Verdict != VerdictFewLabels {
			return windows[i].Window, nil
		}
	}
	return Window{}, fault.New(fault.NotFound, fmt.Sprintf("Model '%s' has no labelled window in %s yet.", k.Model, k.Environment), "Push labels for its predictions; a window counts when its labels are complete.")
}

// LabelledRows gives the rows of a window whose truth is known so far, oldest first: to score another release on them.
func (s *Service) LabelledRows(ctx context.Context, k Key, w Window) ([]LabelledRow, error) {
	all, err := s.labelled(ctx, k, w)
	if err != nil {
		return nil, err
	}
	out := make([]LabelledRow, 0, len(all))
	for _, a := range all {
		p := a.row
		out = append(out, LabelledRow{ID: p.ID, RequestID: p.RequestID, Unit: p.Unit, Entity: p.Entity, At: p.At, Release: p.Release, Features: p.Features, Label: a.label, KnownAt: a.known, Scores: a.scores})
	}
	slices.SortStableFunc(out, func(a, b LabelledRow) int { return a.At.Compare(b.At) })
	return out, nil
}

func (s *Service) labelled(ctx context.Context, k Key, w Window) ([]*asked, error) {
	rows, err := s.log.Rows(ctx, k, w)
	if err != nil {
		return nil, err
	}
	labels, err := s.labels(ctx, k.Project, k.Model, w.From, time.UnixMicro(1<<60))
	if err != nil {
		return nil, err
	}
	all, _ := join(w, rows, labels)
	return slices.DeleteFunc(all, func(a *asked) bool { return !a.labelled || a.row == nil }), nil
}

// CompareOnWindow measures how much better B is than A on the labelled rows of a window that both scored. The caller
// sees to it that neither side was trained on the window.
func (s *Service) CompareOnWindow(ctx context.Context, k Key, w Window, metric string, a, b Scores) (*Comparison, error) {
	all, err := s.labelled(ctx, k, w)
	if err != nil {
		return nil, err
	}
	out := &Comparison{Window: w, A: a.Release, B: b.Release, Labels: len(all)}
	var pairs []Pair
	for _, row := range all {
		x, okX := a.of(row)
		y, okY := b.of(row)
		if !okX || !okY {
			out.Missing++
			continue
		}
		pairs = append(pairs, Pair{x, y, row.label})
	}
	out.Gap = Compare(metric, pairs)
	return out, nil
}

func (sc Scores) of(a *asked) (float64, bool) {
	if sc.ByID != nil {
		v, ok := sc.ByID[a.row.ID]
		return v, ok
	}
	v, ok := a.scores[sc.Release]
	return v, ok
}

// Worst is the feature that adds most to the score, "" when there is none.
func (d DriftFigures) Worst() string {
	name, most := "", -1.0
	for _, f := range d.Features {
		v := f.JS
		if d.Method == MethodPSI {
			v = f.PSI
		}
		if v.Defined() && v.Value*f.Weight > most {
			name, most = f.Name, v.Value*f.Weight
		}
	}
	return name
}
