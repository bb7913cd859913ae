package monitoring

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/serving"
	"falaj/internal/store"
)

// Config is what the stage is built from.
type Config struct {
	Store *store.Store
	Blobs Blobs
	Slog  *slog.Logger
	Log   LogConfig
}

// Service is the stage. It is safe for concurrent use.
type Service struct {
	db    *store.Store
	blobs Blobs
	slog  *slog.Logger
	log   *Log

	mu    sync.Mutex          // guards marks
	marks map[[2]string]int64 // event time by project and model, as far as this process has seen
	judge sync.Mutex          // one evaluation at a time
	wake  chan struct{}       // capacity 1: something may be due
	stop  context.CancelFunc  // of the background loop
	done  sync.WaitGroup
}

// New opens the prediction log, reads back what an earlier process left unsealed, and starts evaluating in the background.
func New(ctx context.Context, cfg Config) (*Service, error) {
	s := &Service{db: cfg.Store, blobs: cfg.Blobs, slog: cfg.Slog, marks: map[[2]string]int64{}, wake: make(chan struct{}, 1)}
	var err error
	if s.log, err = openLog(ctx, cfg.Log, cfg.Store, cfg.Blobs, cfg.Slog, s.seen); err != nil {
		return nil, err
	}
	bg, cancel := context.WithCancel(who.With(context.Background(), who.Actor{Kind: who.System, Name: "monitoring", Via: "system"}))
	s.stop = cancel
	s.done.Go(func() { s.loop(bg) })
	poke(s.wake)
	return s, nil
}

// Close stops evaluating and closes the log.
func (s *Service) Close() error {
	s.stop()
	s.done.Wait()
	return s.log.Close()
}

// Record implements serving.PredictionSink; see Log.Record.
func (s *Service) Record(ctx context.Context, predictions []serving.Prediction) error {
	return s.log.Record(ctx, predictions)
}

// Flush returns when every prediction recorded before lies on the disk.
func (s *Service) Flush(ctx context.Context) error { return s.log.Flush(ctx) }

// Snapshot, Dropped and Repeated are the counters for metrics; see Log.
func (s *Service) Snapshot() []ReleaseStats { return s.log.Snapshot() }
func (s *Service) Dropped() int64           { return s.log.Dropped() }
func (s *Service) Repeated() int64          { return s.log.Repeated() }

// seen notes event time and wakes the evaluation when a new day begins.
func (s *Service) seen(project, model string, at int64) {
	const day = 24 * hourMicros
	k := [2]string{project, model}
	s.mu.Lock()
	old, known := s.marks[k]
	if !known || at > old {
		s.marks[k] = at
	}
	s.mu.Unlock()
	if !known || at/day > old/day {
		poke(s.wake)
	}
}

func (s *Service) loop(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
		if err := s.Evaluate(ctx, "", ""); err != nil && ctx.Err() == nil {
			s.slog.Error("monitors could not be evaluated; trying again", "err", err)
		}
	}
}

func (k Key) resource(kind string) policy.Resource {
	return policy.Resource{Kind: kind, ID: k.Model + "@" + k.Environment, Project: k.Project}
}

func (m Monitor) withDefaults() Monitor {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	q, d := &m.Quality, &m.Drift
	def(&q.Window, 14*24*time.Hour)
	def(&q.LabelsAfter, 24*time.Hour)
	def(&d.Window, q.Window)
	if q.Metric == "" {
		q.Metric = MetricAUC
	}
	if q.MinGap == 0 {
		q.MinGap = 0.01
	}
	if q.MinLabels == 0 {
		q.MinLabels = 200
	}
	if d.Method == "" {
		d.Method = MethodJS
	}
	if d.Weigh == "" {
		d.Weigh = WeighImportance
	}
	if d.Threshold == 0 {
		d.Threshold = 0.2
	}
	if d.MinRows == 0 {
		d.MinRows = 200
	}
	if d.MissingBy == 0 {
		d.MissingBy = 0.2
	}
	return m
}

// check refuses a monitor that could not be evaluated as written.
func (m Monitor) check() error {
	bad := func(field, format string, args ...any) error {
		return fault.Newf(fault.Invalid, format, args...).At("monitor." + field)
	}
	q, d := m.Quality, m.Drift
	switch {
	case q.Metric != MetricAUC && q.Metric != MetricBrier && q.Metric != MetricLogLoss:
		return bad("quality.metric", "Quality by '%s' is not available in this version; auc, brier and log_loss are.", q.Metric)
	case q.Window < time.Hour || q.Window%time.Hour != 0 || d.Window < time.Hour || d.Window%time.Hour != 0:
		return bad("quality.window", "A window is a whole number of hours, at least one.")
	case q.LabelsAfter < 0:
		return bad("quality.labels_after", "labels_after cannot be negative.")
	case q.MinGap < 0 || !finite(q.MinGap):
		return bad("quality.min_gap", "min_gap is %v; it is a number, 0 or more.", q.MinGap)
	case d.Method != MethodJS && d.Method != MethodPSI:
		return bad("drift.method", "Drift by '%s' is not available in this version; jensen_shannon and psi are.", d.Method)
	case d.Weigh != WeighImportance && d.Weigh != WeighEqual:
		return bad("drift.weigh", "Drift weighed by '%s' is not available in this version; importance and equal are.", d.Weigh)
	case d.Threshold <= 0 || !finite(d.Threshold):
		return bad("drift.threshold", "The drift threshold is %v; it is a number above 0.", d.Threshold)
	}
	return nil
}

// SetMonitor says what is watched; zero fields take their defaults. Windows already evaluated stay as they are.
func (s *Service) SetMonitor(ctx context.Context, k Key, m Monitor) (Monitor, error) {
	m = m.withDefaults()
	if err := m.check(); err != nil {
		return m, err
	}
	doc, err := document(m)
	if err != nil {
		return m, err
	}
	var had Monitor
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		had, err = selectMonitor(ctx, q, k)
		return err
	})
	if err == nil && had == m {
		return m, nil
	}
	if err != nil && !store.NotFound(err) {
		return m, err
	}
	err = s.db.Change(ctx, "model.monitor", k.resource("monitor"), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := upsertMonitor(ctx, tx, k, doc); err != nil {
			return event.Draft{}, err
		}
		tx.Before(had)
		tx.After(m)
		return event.Draft{Type: "monitor.defined", Subject: k.Model, Data: map[string]any{"key": k, "monitor": m}}, nil
	})
	poke(s.wake)
	return m, err
}

// Monitor gives what is watched; fault.NotFound when nothing is.
func (s *Service) Monitor(ctx context.Context, k Key) (m Monitor, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		m, err = selectMonitor(ctx, q, k)
		return err
	})
	return m, store.One(err, fmt.Sprintf("monitor of model '%s' in %s", k.Model, k.Environment))
}

// Monitors lists what is watched in a project.
func (s *Service) Monitors(ctx context.Context, project string) (out []Key, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		out, err = selectMonitored(ctx, q, project, "")
		return err
	})
	return out, err
}

// SetReference records what drift of a release is measured against. Its features stand in the order of the release's vector.
func (s *Service) SetReference(ctx context.Context, project, release string, r Reference) error {
	if len(r.Profile.Features) == 0 || len(r.Importance) > 0 && len(r.Importance) != len(r.Profile.Features) {
		return fault.Newf(fault.Invalid, "A drift reference needs features, and as many importances as features; it has %d and %d.", len(r.Profile.Features), len(r.Importance)).At("reference")
	}
	for _, f := range r.Profile.Features {
		if bins := len(f.Edges) + len(f.Values) + 1; len(f.Counts) != bins || f.Kind != Numeric && f.Kind != Categorical {
			return fault.Newf(fault.Invalid, "The profile of feature '%s' has %d counts for %d bins.", f.Name, len(f.Counts), bins).At("reference." + f.Name)
		}
	}
	box, err := s.blobs.Box(ctx, project)
	if err != nil {
		return err
	}
	doc, err := box.SealJSON(r, referencePlace(release)) // its edges are users' values
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "The drift reference holds a number that is not finite.", "")
	}
	return s.db.Change(ctx, "model.monitor", policy.Resource{Kind: "drift_reference", ID: release, Project: project}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		tx.After(r)
		return event.Draft{}, upsertReference(ctx, tx, project, release, doc)
	})
}

// Advance says that event time has come to `to` in the whole project, for labels too: a replay tells it when nothing
// more will come from before. It needs the replay right.
func (s *Service) Advance(ctx context.Context, project string, to time.Time) error {
	if err := s.may(ctx, "time.replay", policy.Resource{Kind: "project", ID: project, Project: project}); err != nil {
		return err
	}
	err := s.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := raiseWatermark(ctx, tx, project, "", markEvent, to.UnixMicro()); err != nil {
			return err
		}
		return raiseWatermark(ctx, tx, project, "", markLabel, to.UnixMicro())
	})
	poke(s.wake)
	return err
}

// Watermarks gives how far event time has come for a model, and how far its labels; zero when nothing came.
func (s *Service) Watermarks(ctx context.Context, project, model string) (events, labels time.Time, err error) {
	var e, l int64
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) (err error) {
		if e, err = watermark(ctx, q, project, model, markEvent); err != nil {
			return err
		}
		l, err = watermark(ctx, q, project, model, markLabel)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.marks[[2]string{project, model}]; ok && (e == 0 || at > e) {
		e = at
	}
	return store.Time(e), store.Time(l), err
}

// may authorizes high-rate data; a refusal is recorded.
func (s *Service) may(ctx context.Context, a policy.Action, res policy.Resource) error {
	dec, err := s.db.Authorize(ctx, a, res)
	if err != nil || dec.Allow {
		return err
	}
	if err := s.db.Deny(ctx, a, res, dec); err != nil {
		return err
	}
	return store.Denied(ctx, a, res, dec)
}
