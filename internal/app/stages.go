package app

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"

	"falaj/internal/data"
	"falaj/internal/data/duckdb"
	"falaj/internal/data/iceberg"
	"falaj/internal/delivery"
	"falaj/internal/features"
	onlinesqlite "falaj/internal/features/sqlite"
	"falaj/internal/kernel/seal"
	"falaj/internal/lineage"
	"falaj/internal/monitoring"
	"falaj/internal/plan/pipeline"
	"falaj/internal/registry"
	"falaj/internal/secret"
	"falaj/internal/serving"
	"falaj/internal/serving/python"
	"falaj/internal/serving/trees"
	"falaj/internal/tracking"
	"falaj/internal/training"
	"falaj/internal/training/process"
)

// stages are the rooms of the lifecycle, in the order of the water.
type stages struct {
	secrets    *secret.Service
	lineage    *lineage.Service
	data       *data.Service
	features   *features.Service
	tracking   *tracking.Service
	training   *training.Service
	runtimes   *training.Runtimes
	registry   *registry.Service
	delivery   *delivery.Service
	serving    *serving.Service
	monitoring *monitoring.Service
	pipelines  *pipeline.Service
}

// build makes every stage and gives it its answers. Nothing runs yet.
func (a *App) build(ctx context.Context, keys *seal.Keys) error {
	in := func(name string) string { return filepath.Join(a.cfg.Data, name) }
	st := &a.stages
	st.secrets = secret.New(a.store, a.blobs, keys.MAC, secret.Config{Env: a.cfg.SecretEnv, Dir: a.cfg.SecretDir})
	st.lineage = lineage.New(a.store)
	// The year of flights fits into 384 MiB; beyond it a job spills into its scratch, and server and job together stay below 1 GiB.
	decrypted, err := scratch(a.cfg)
	if err != nil {
		return err
	}
	a.onClose(func() error {
		err := wipe(decrypted)
		if a.cfg.Scratch == "" {
			err = errors.Join(err, os.Remove(decrypted)) // ours alone; the operator's folder stays
		}
		return err
	})
	engine, err := duckdb.New(duckdb.Config{Scratch: filepath.Join(decrypted, "data"), MemoryLimit: 384 << 20})
	if err != nil {
		return err
	}
	warehouse := data.NewWarehouse(a.store, a.blobs)
	catalog, err := a.catalog(ctx, warehouse)
	if err != nil {
		return err
	}
	a.onClose(catalog.Close)
	st.data = data.New(a.store, a.blobs, engine, catalog, keys.MAC, data.Limits{})
	online, err := onlinesqlite.Open(ctx, in("online.db"))
	if err != nil {
		return err
	}
	a.onClose(online.Close)
	st.features = features.New(a.store, a.blobs, laid{st.data}, engine, online)
	st.tracking = tracking.New(a.store, a.blobs)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	launcher, err := process.New(process.Config{Self: []string{self, "worker", "exec"}})
	if err != nil {
		return err
	}
	a.onClose(launcher.Close)
	if st.training, err = training.New(a.store, a.blobs, launcher, filepath.Join(decrypted, "training")); err != nil {
		return err
	}
	if st.runtimes, err = training.NewRuntimes(in("runtimes")); err != nil {
		return err
	}
	st.registry = registry.New(a.store, st.tracking, a.blobs, func(context.Context, string) ([]string, error) { return delivery.DefaultEnvironments(), nil })
	if st.monitoring, err = monitoring.New(ctx, monitoring.Config{Store: a.store, Blobs: a.blobs, Slog: a.log, Log: monitoring.LogConfig{Dir: in("predictions")}}); err != nil {
		return err
	}
	a.onClose(st.monitoring.Close)
	workers := filepath.Join(decrypted, "workers")
	if err := fresh(workers); err != nil {
		return err
	}
	st.serving = serving.New(serving.Config{Store: a.store, Features: serving.FromFeatures(st.features), Models: releases{a}, Sink: st.monitoring, Log: a.log, Loaders: map[string][]serving.Loader{
		"lightgbm": {trees.Loader{}, python.Loader{Python: a.interpreter, Dir: workers, Log: a.log}},
		"pyfunc":   {python.Loader{Python: a.interpreter, Dir: workers, Log: a.log}},
	}})
	a.onClose(st.serving.Close)
	work := filepath.Join(decrypted, "pipelines")
	if err := fresh(work); err != nil {
		return err
	}
	st.pipelines = pipeline.New(pipeline.Config{
		Store: a.store, Flow: a.flow, Blobs: a.blobs, Access: a.access, Data: st.data, Features: st.features, Tracking: st.tracking, Training: st.training, Registry: st.registry,
		Delivery: func() *delivery.Service { return st.delivery }, Serving: st.serving, Monitoring: st.monitoring, Lineage: st.lineage, Secrets: st.secrets, Rooms: engine, Region: a.cfg.Region, Runtimes: st.runtimes,
		Python: a.cfg.Python, Wheelhouse: a.cfg.Wheelhouse, Launcher: launcher, Work: work, URL: a.jobURL, CA: a.tls.jobCA, Importance: gain, Log: a.log,
	})
	st.delivery = delivery.New(a.store, a.flow, st.pipelines, st.pipelines)
	a.subscribe()
	return nil
}

// catalog of the tables: a file beside the database, or in the same PostgreSQL.
func (a *App) catalog(ctx context.Context, w *data.Warehouse) (*iceberg.Catalog, error) {
	if a.cfg.Postgres == "" {
		return iceberg.OpenSQLite(ctx, filepath.Join(a.cfg.Data, "catalog.db"), w)
	}
	db, err := sql.Open("pgx", a.cfg.Postgres)
	if err != nil {
		return nil, err
	}
	a.onClose(db.Close)
	return iceberg.Open(ctx, db, iceberg.Postgres, w)
}

// subscribe lets what flows back flow back: as events.
func (a *App) subscribe() {
	st := a.stages
	a.relay.Subscribe("delivery", []string{"change.*", "serving.activated", "serving.failed"}, st.delivery.OnEvent)
	a.relay.Subscribe("serving", serving.Moved(), st.serving.Follow)
	a.relay.Subscribe("registry", registry.Moved(), st.registry.Follow)
	a.relay.Subscribe("plan.start", []string{"pipeline.requested"}, st.pipelines.OnEvent)
	a.relay.Subscribe("plan.alerts", []string{monitoring.QualityDegraded, monitoring.DriftDetected}, st.pipelines.OnAlert)
}

// begin brings up what must be there before the first request: endpoints as delivery left them.
func (a *App) begin(ctx context.Context) error {
	if err := a.stages.training.Recover(ctx); err != nil {
		return err
	}
	if err := a.stages.serving.Load(ctx); err != nil {
		a.log.Error("some endpoints did not load", "err", err)
	}
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); a.background(bg) }()
	a.onClose(func() error { stop(); <-done; return nil })
	return nil
}

// gain is the importance by feature of a model that the tree engine knows.
func gain(r io.Reader) (map[string]float64, error) {
	m, err := trees.Parse(r)
	if err != nil {
		return nil, nil //nolint:nilerr // another format: the caller weighs all features alike
	}
	out := map[string]float64{}
	imp := m.Importance()
	for i, name := range m.FeatureNames() {
		out[name] = imp.Gain[i]
	}
	return out, nil
}

// interpreter is the Python of a runtime that a release names.
func (a *App) interpreter(_ context.Context, digest string) (string, error) {
	rt, err := a.stages.runtimes.Find(digest)
	if err != nil {
		return "", err
	}
	return rt.Python, nil
}

// laid lets features read what the data stage lays out.
type laid struct{ data *data.Service }

func (l laid) Tables(ctx context.Context, project string, selects []string, pins map[string]int64) (*features.Tables, error) {
	t, err := l.data.Tables(ctx, project, selects, pins)
	if err != nil {
		return nil, err
	}
	out := &features.Tables{Room: t.Room, Inputs: t.Inputs, Masked: t.Masked}
	for _, p := range t.Pins {
		out.Pins = append(out.Pins, features.Pin{Dataset: p.Dataset, Version: p.N, Digest: p.Digest})
	}
	return out, nil
}
