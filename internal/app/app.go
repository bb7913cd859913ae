package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"falaj/internal/access"
	"falaj/internal/access/oidc"
	"falaj/internal/api"
	"falaj/internal/audit"
	"falaj/internal/backup"
	"falaj/internal/blob"
	"falaj/internal/blob/dir"
	"falaj/internal/door"
	"falaj/internal/flow"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/store/postgres"
	"falaj/internal/store/sqlite"
	"falaj/internal/ui"
)

// Version of the program; it stands in /me, in the CLI and in the passport.
const Version = "0.1.0"

// workflowSchema is the version of the workflows' shape (flow.Config.SchemaVersion).
const workflowSchema = "1"

// App is a running server.
type App struct {
	cfg     Config
	log     *slog.Logger
	lock    *os.File
	store   *store.Store
	access  *access.Service
	sso     *oidc.Provider // nil: people have passwords only
	blobs   *blob.Store
	flow    *flow.Engine
	relay   *flow.Relay
	hooks   *flow.Webhooks
	door    *door.Door
	stages  stages
	meters  *meters
	backups *backup.Service

	tls      security
	listener net.Listener // for people and clients
	inner    net.Listener // for our own jobs; the same one where that speaks on loopback by our CA
	http     *http.Server
	served   chan error
	closers  []func() error // in order of opening; Stop runs them backwards
}

// New builds everything and migrates the databases; nothing listens and no workflow runs yet.
func New(ctx context.Context, cfg Config, log *slog.Logger) (_ *App, err error) {
	cfg, err = cfg.Complete()
	if err != nil {
		return nil, err
	}
	sso, groups, err := federation(cfg)
	if err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, log: log, sso: sso, served: make(chan error, 2), meters: newMeters()}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.lock, err = claim(cfg.Data); err != nil {
		return nil, err
	}
	a.onClose(a.lock.Close)
	if err := settle(cfg.Data, cfg.Region); err != nil {
		return nil, err
	}
	keys, err := seal.Open(cfg.Keys)
	if err != nil {
		return nil, err
	}
	if err := guardUpgrade(ctx, cfg.Data, log); err != nil {
		return nil, err
	}
	if a.tls, err = newSecurity(cfg, keys, log); err != nil {
		return nil, err
	}
	engine, err := policy.New()
	if err != nil {
		return nil, err
	}
	authorizer := access.NewAuthorizer(engine, cfg.Region, cfg.Open)
	driver, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	if a.store, err = store.Open(ctx, driver, authorizer, filepath.Join(cfg.Data, "snapshots"), log); err != nil {
		return nil, err
	}
	a.onClose(a.store.Close)
	a.access = access.New(a.store, authorizer, keys.MAC)
	if sso != nil {
		a.access.Federate(access.Federation{Provider: sso, Groups: groups})
	}
	folder, err := dir.Open(filepath.Join(cfg.Data, "blobs"))
	if err != nil {
		return nil, err
	}
	a.onClose(folder.Close)
	a.blobs = blob.New(a.store, keys, folder)
	system := who.AsSystem(ctx, "app")
	box, err := a.blobs.Box(system, "default")
	if err != nil {
		return nil, err
	}
	if a.flow, err = flow.Open(ctx, flow.Config{Path: a.flowPath(), PostgresDSN: cfg.Postgres, Executor: "main", SchemaVersion: workflowSchema, Log: log, Box: box}); err != nil {
		return nil, err
	}
	a.onClose(a.flow.Close)
	a.relay = flow.NewRelay(a.store, flow.RelayConfig{Log: log})
	a.onClose(func() error { a.relay.Close(); return nil })
	allow, err := networks(cfg.WebhookNetworks)
	if err != nil {
		return nil, err
	}
	a.hooks = flow.NewWebhooks(a.store, a.relay, box, flow.WebhookConfig{Allow: allow, AllowHTTP: len(allow) > 0})
	if err := a.build(system, keys); err != nil {
		return nil, err
	}
	if err := a.backing(system, keys); err != nil {
		return nil, err
	}
	if err := signUpgrade(cfg.Data, log); err != nil {
		return nil, err
	}
	if err := a.meters.registry.Register(newStageMeters(a)); err != nil {
		return nil, err
	}
	a.door = door.New(a.store, a.access, door.Config{Open: cfg.Open, Hosts: cfg.names(), Known: engine.Known, Log: log, Observe: a.meters.observe})
	return a, a.routes()
}

func (a *App) database(ctx context.Context) (store.Driver, error) {
	if a.cfg.Postgres != "" {
		return postgres.Open(ctx, a.cfg.Postgres)
	}
	return sqlite.Open(ctx, filepath.Join(a.cfg.Data, "falaj.db"))
}

func (a *App) flowPath() string {
	if a.cfg.Postgres != "" {
		return ""
	}
	return filepath.Join(a.cfg.Data, "flow.db")
}

func networks(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fault.New(fault.Invalid, "'"+s+"' is not a network.", "Write it like 127.0.0.0/8.").At("webhook_networks")
		}
		out = append(out, p)
	}
	return out, nil
}

func (a *App) onClose(f func() error) { a.closers = append(a.closers, f) }

// routes fills the one route table.
func (a *App) routes() error {
	own := api.New(a.deps())
	spec, err := own.OpenAPI()
	if err != nil {
		return err
	}
	if err := a.door.Handle(own.Routes()...); err != nil {
		return err
	}
	if err := a.door.Handle(a.foreign()...); err != nil {
		return err
	}
	serveSpec := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(spec)
	})
	return a.door.Handle(
		door.Route{Method: "GET", Pattern: "/healthz", Public: true, Handler: http.HandlerFunc(alive)},
		door.Route{Method: "GET", Pattern: "/readyz", Public: true, Handler: http.HandlerFunc(a.ready)},
		door.Route{Method: "GET", Pattern: "/ca.pem", Public: true, Handler: http.HandlerFunc(a.tls.serveCA)},
		door.Route{Method: "GET", Pattern: "/metrics", Action: "monitor.read", Resource: installation, Handler: a.meters.handler()},
		door.Route{Method: "GET", Pattern: api.Base + "/openapi.json", Public: true, Handler: serveSpec},
		door.Route{Method: "GET", Pattern: "/", Public: true, Handler: ui.Handler()},
	)
}

// installation is the resource of what belongs to no project: a scraper holds a token of a viewer of "*".
func installation(*http.Request) (policy.Resource, error) {
	return policy.Resource{Kind: "Installation", ID: "*"}, nil
}

func alive(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	if err := a.store.Ping(r.Context()); err != nil {
		door.Problem(w, r, fault.From(err))
		return
	}
	alive(w, r)
}

// Start recovers what was under way, delivers events and listens.
func (a *App) Start(ctx context.Context) (err error) {
	ctx = who.AsSystem(ctx, "app")
	// First, because what is taken up again may ask where the server answers. Callers wait until Serve.
	if err := a.listen(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			a.listener.Close()
			a.inner.Close()
		}
	}()
	if err := a.flow.Launch(ctx); err != nil {
		return err
	}
	if err := a.relay.Start(ctx); err != nil {
		return err
	}
	if err := a.hooks.Start(ctx); err != nil {
		return err
	}
	if err := a.begin(ctx); err != nil {
		return err
	}
	a.http = &http.Server{Handler: a.door, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)}
	a.serve(a.listener)
	if a.inner != a.listener {
		a.serve(a.inner)
	}
	return nil
}

func (a *App) serve(l net.Listener) {
	go func() {
		err := a.http.Serve(l)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		a.served <- err
	}()
}

// SetupLink is the one-use link of a first start, or "".
func (a *App) SetupLink(ctx context.Context) (string, error) {
	secret, err := a.access.SetupLink(ctx)
	if err != nil || secret == "" {
		return "", err
	}
	return a.URL() + "/#/setup?token=" + secret, nil
}

// Done gets the error that ended serving, nil after Stop.
func (a *App) Done() <-chan error { return a.served }

// Lost is closed when another process took over the workflows of this one (PostgreSQL only).
func (a *App) Lost() <-chan struct{} { return a.flow.Lost() }

// Stop ends requests, workflows and databases in that order. Workflows go on at the next start.
func (a *App) Stop(ctx context.Context) error {
	var err error
	if a.http != nil {
		stop, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err = a.http.Shutdown(stop); err != nil {
			err = a.http.Close()
		}
	}
	return errors.Join(err, a.close())
}

func (a *App) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	a.closers = nil
	return errors.Join(errs...)
}

func (a *App) deps() api.Deps {
	st := a.stages
	return api.Deps{Store: a.store, Access: a.access, Audit: audit.New(a.store, blobCheck{a.blobs}), Blobs: a.blobs, Delivery: st.delivery, Pipelines: st.pipelines, Monitoring: st.monitoring,
		Registry: st.registry, Tracking: st.tracking, Data: st.data, Features: st.features, Lineage: st.lineage, Secrets: st.secrets, Serving: st.serving,
		Relay: a.relay, Webhooks: a.hooks, Log: a.log, Version: Version, Region: a.cfg.Region, Stores: a.places(), Open: a.cfg.Open, Secure: a.tls.on(), SSO: a.ssoButton(), Backups: a.backups}
}

// blobCheck lets the audit read every stored byte.
type blobCheck struct{ blobs *blob.Store }

func (b blobCheck) VerifyBlobs(ctx context.Context, found func(name, why string)) (int, error) {
	return b.blobs.VerifyAll(ctx, func(f blob.Finding) { found(f.Project+" "+f.Digest+" (file "+f.Stored+")", f.Problem) })
}
