package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"falaj/internal/app"
	"falaj/internal/kernel/fault"
)

func (e *env) serverCmd() *cobra.Command {
	var file string
	var flags app.Config
	c := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane",
		Long:  "Run the control plane in the foreground. The first start prints a one-use link that creates the admin.\nSettings come from --config, then FALAJ_* variables, then flags; `falaj config explain` lists them.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := settle(file, flags, func(name string) bool { return cmd.Flags().Changed(name) })
			if err != nil {
				return err
			}
			return e.serve(cmd.Context(), cfg)
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "", "YAML file with settings")
	f.StringVar(&flags.Data, "data", "", "data directory")
	f.StringVar(&flags.Keys, "keys", "", "folder of the keyset")
	f.StringVar(&flags.Listen, "listen", "", "HTTP address (default "+app.DefaultListen+")")
	f.StringVar(&flags.TLS, "tls", "", "auto, CERT.pem,KEY.pem, or off (default; loopback only)")
	f.StringVar(&flags.Region, "region", "", "region of this installation (default ae)")
	f.StringVar(&flags.Postgres, "postgres", "", "PostgreSQL address instead of SQLite")
	f.BoolVar(&flags.Open, "open", false, "no token is asked for on loopback (never approves)")
	f.StringSliceVar(&flags.Hosts, "host", nil, "name that clients use for this server: accepted in the Host header, and in the certificate of --tls auto")
	f.StringVar(&flags.Scratch, "scratch", "", "folder on an encrypted volume for decrypted working files (default: in memory, /dev/shm)")
	f.StringVar(&flags.LogLevel, "log-level", "", "debug, info, warn or error")
	f.StringVar(&flags.Python, "python", "", "Python interpreter for runtimes")
	f.StringVar(&flags.Wheelhouse, "wheelhouse", "", "folder of wheels, for sites without a package registry")
	f.StringVar(&flags.ArtifactRoot, "default-artifact-root", "", "accepted as MLflow's servers do; artifacts go through the proxy")
	f.StringSliceVar(&flags.WebhookNetworks, "webhook-network", nil, "private network that webhooks may reach")
	f.StringVar(&flags.OIDCIssuer, "oidc-issuer", "", "OpenID Connect provider at which people sign in")
	f.StringVar(&flags.OIDCClientID, "oidc-client-id", "", "falaj's name at the provider")
	f.StringVar(&flags.OIDCClientSecretFile, "oidc-client-secret-file", "", "file with the client's secret, 0600 or 0400")
	f.StringVar(&flags.OIDCAudience, "oidc-audience", "", "audience of bearer tokens beside the client id")
	f.StringVar(&flags.OIDCGroupsClaim, "oidc-groups-claim", "", "claim that lists a person's groups (default groups)")
	f.StringArrayVar(&flags.OIDCMap, "oidc-map", nil, "PROVIDERGROUP=GROUP; again for each")
	f.StringVar(&flags.OIDCName, "oidc-name", "", "what the sign-in button says")
	f.StringSliceVar(&flags.SecretEnv, "secret-env", nil, "variable of this environment that projects may refer to as env://NAME")
	f.StringVar(&flags.SecretDir, "secret-dir", "", "folder whose files projects may refer to as file://PATH")
	return c
}

// settle merges file, environment and flags, the later the stronger.
func settle(file string, flags app.Config, changed func(string) bool) (app.Config, error) {
	var cfg app.Config
	if file != "" {
		var err error
		if cfg, err = app.LoadConfig(file); err != nil {
			return cfg, err
		}
	}
	texts := map[string][2]*string{
		"data": {&cfg.Data, &flags.Data}, "keys": {&cfg.Keys, &flags.Keys}, "listen": {&cfg.Listen, &flags.Listen}, "tls": {&cfg.TLS, &flags.TLS}, "region": {&cfg.Region, &flags.Region},
		"postgres": {&cfg.Postgres, &flags.Postgres}, "scratch": {&cfg.Scratch, &flags.Scratch}, "log-level": {&cfg.LogLevel, &flags.LogLevel}, "python": {&cfg.Python, &flags.Python},
		"wheelhouse": {&cfg.Wheelhouse, &flags.Wheelhouse}, "secret-dir": {&cfg.SecretDir, &flags.SecretDir}, "default-artifact-root": {&cfg.ArtifactRoot, &flags.ArtifactRoot},
		"oidc-issuer": {&cfg.OIDCIssuer, &flags.OIDCIssuer}, "oidc-client-id": {&cfg.OIDCClientID, &flags.OIDCClientID}, "oidc-client-secret-file": {&cfg.OIDCClientSecretFile, &flags.OIDCClientSecretFile},
		"oidc-audience": {&cfg.OIDCAudience, &flags.OIDCAudience}, "oidc-groups-claim": {&cfg.OIDCGroupsClaim, &flags.OIDCGroupsClaim}, "oidc-name": {&cfg.OIDCName, &flags.OIDCName},
	}
	for name, p := range texts {
		if v, ok := os.LookupEnv(envName(name)); ok {
			*p[0] = v
		}
		if changed(name) {
			*p[0] = *p[1]
		}
	}
	lists := map[string][2]*[]string{"host": {&cfg.Hosts, &flags.Hosts}, "webhook-network": {&cfg.WebhookNetworks, &flags.WebhookNetworks}, "oidc-map": {&cfg.OIDCMap, &flags.OIDCMap},
		"secret-env": {&cfg.SecretEnv, &flags.SecretEnv}}
	for name, p := range lists {
		if v, ok := os.LookupEnv(envName(name)); ok {
			*p[0] = strings.Split(v, ",")
		}
		if changed(name) {
			*p[0] = *p[1]
		}
	}
	if v, ok := os.LookupEnv(envName("open")); ok {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return cfg, fault.New(fault.Invalid, "FALAJ_OPEN is '"+v+"'.", "Use true or false.")
		}
		cfg.Open = b
	}
	if changed("open") {
		cfg.Open = flags.Open
	}
	return cfg, nil
}

func envName(flag string) string {
	return "FALAJ_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// logger writes JSON unless a person watches. Words go to stderr, so that stdout stays data.
func logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fault.New(fault.Invalid, "'"+level+"' is not a log level.", "Use debug, info, warn or error.").At("log-level")
		}
	}
	opts := &slog.HandlerOptions{Level: l}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return slog.New(slog.NewJSONHandler(w, opts)), nil
}

func (e *env) serve(ctx context.Context, cfg app.Config) error {
	log, err := logger(e.err, cfg.LogLevel)
	if err != nil {
		return err
	}
	a, err := app.New(ctx, cfg, log)
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return withStop(a, err)
	}
	link, err := a.SetupLink(ctx)
	if err != nil {
		return withStop(a, err)
	}
	e.say("falaj %s serves %s", app.Version, a.URL())
	if file := a.CA(); file != "" {
		e.say("Its certificate is by its own CA. Clients need %s: falaj login --ca FILE", file)
	}
	if cfg.Open {
		e.say("%s", e.paint(yellow, "OPEN MODE: everybody on this machine may read and change everything except approve. Never use it on a shared machine."))
	} else if link != "" {
		e.say("First start. Create the admin within 24 hours with this link (it works once):\n  %s", link)
	}
	select {
	case <-ctx.Done():
		e.say("stopping")
		return withStop(a, nil)
	case err := <-a.Done():
		return withStop(a, err)
	case <-a.Lost():
		return withStop(a, fault.New(fault.Conflict, "Another falaj took over this one's workflows.", "Run one server per executor name."))
	}
}

func withStop(a *app.App, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if stop := a.Stop(ctx); err == nil {
		return stop
	}
	return err
}

func (e *env) configCmd() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "The server's settings"}
	c.AddCommand(&cobra.Command{Use: "explain", Short: "Print every setting and what it does", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		_, err := fmt.Fprint(e.out, app.ExplainConfig())
		return err
	}})
	return c
}
