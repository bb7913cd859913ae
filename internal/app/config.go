// Package app is the only place that builds things: a Config becomes an App that starts and stops.
// It alone imports driver folders and wires the answers that upstream stages ask of downstream ones.
package app

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"falaj/internal/kernel/fault"
)

// Config of a server. Each field is set by --flag, FALAJ_NAME, or a line of the file given by --config, in that order of
// strength. `falaj config explain` prints these comments.
type Config struct {
	// Data is the data directory: databases, blobs, cache, runtimes. Default $XDG_DATA_HOME/falaj.
	Data string `yaml:"data"`
	// Keys is the folder of the keyset, 0700. Default DATA/keys; put it on another volume in production.
	Keys string `yaml:"keys"`
	// Listen is the HTTP address. Anything but loopback needs TLS.
	Listen string `yaml:"listen"`
	// TLS is off (the default, on loopback only), auto (a certificate by falaj's own CA, see `falaj ca`), or CERT.pem,KEY.pem:
	// two files that are read again when they change.
	TLS string `yaml:"tls"`
	// Region is where this installation stands, as a two-letter country code; projects' residency is checked against it. Default ae.
	Region string `yaml:"region"`
	// Postgres is the address of a PostgreSQL database; empty: SQLite in the data directory. On another machine its certificate
	// is verified unless the address says sslmode=...
	Postgres string `yaml:"postgres"`
	// Open lets callers on loopback work without a token, as `anonymous`, who never approves.
	Open bool `yaml:"open"`
	// Hosts are names accepted in the Host header beside loopback ones.
	Hosts []string `yaml:"hosts"`
	// Scratch is the folder for decrypted working files. Default: in memory, under /dev/shm. Give a folder on an encrypted
	// volume where the work is larger than memory: you vouch for the volume.
	Scratch string `yaml:"scratch"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `yaml:"log_level"`
	// Python is what runtimes are made with: a version such as 3.11, or a path. Default: the machine's python3.
	Python string `yaml:"python"`
	// Wheelhouse is a folder of wheels for sites without a package registry.
	Wheelhouse string `yaml:"wheelhouse"`
	// ArtifactRoot is accepted for MLflow's habit of --default-artifact-root; artifacts always go through the proxy.
	ArtifactRoot string `yaml:"default_artifact_root"`
	// WebhookNetworks are private networks that webhooks may reach, such as 127.0.0.0/8. None by default.
	WebhookNetworks []string `yaml:"webhook_networks"`
	// OIDCIssuer lets people sign in at an OpenID Connect provider; spelled exactly as it spells itself. https, or http on loopback.
	OIDCIssuer string `yaml:"oidc_issuer"`
	// OIDCClientID is falaj's name at the provider, whose redirect URI is SERVER/api/falaj/v1/oidc/callback.
	OIDCClientID string `yaml:"oidc_client_id"`
	// OIDCClientSecretFile holds the client's secret, 0600 or 0400. None: a public client.
	OIDCClientSecretFile string `yaml:"oidc_client_secret_file"`
	// OIDCAudience is accepted in the provider's bearer tokens beside the client id.
	OIDCAudience string `yaml:"oidc_audience"`
	// OIDCGroupsClaim names the claim that lists a person's groups. Default groups.
	OIDCGroupsClaim string `yaml:"oidc_groups_claim"`
	// OIDCMap are PROVIDERGROUP=GROUP pairs. With any, groups of the provider's people come from it alone; other groups give nothing.
	OIDCMap []string `yaml:"oidc_map"`
	// OIDCName is what the sign-in button says. Default: Sign in with SSO, in the page's language.
	OIDCName string `yaml:"oidc_name"`
	// SecretEnv names variables of the server's environment that every project may refer to as env://NAME. None by default.
	SecretEnv []string `yaml:"secret_env"`
	// SecretDir is a folder whose files every project may refer to as file://PATH. None by default.
	SecretDir string `yaml:"secret_dir"`
}

// DefaultListen is the HTTP address when none is given.
const DefaultListen = "127.0.0.1:7420"

// LoadConfig reads a file strictly: an unknown key is an error with its line.
func LoadConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fault.Wrap(err, fault.Invalid, "The configuration file "+path+" could not be read.", "Check --config.")
	}
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
		return c, fault.Wrap(err, fault.Invalid, "The configuration file is wrong: "+yaml.FormatError(err, false, true), "`falaj config explain` lists the keys.")
	}
	return c, nil
}

// Complete fills defaults and refuses what would be unsafe.
func (c Config) Complete() (Config, error) {
	if c.Data == "" {
		base := os.Getenv("XDG_DATA_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return c, fault.Wrap(err, fault.Invalid, "There is no home folder for the data.", "Give --data DIR.")
			}
			base = filepath.Join(home, ".local", "share")
		}
		c.Data = filepath.Join(base, "falaj")
	}
	abs, err := filepath.Abs(c.Data)
	if err != nil {
		return c, err
	}
	c.Data = abs
	if c.Scratch != "" {
		if c.Scratch, err = filepath.Abs(c.Scratch); err != nil {
			return c, err
		}
	}
	if c.Keys == "" {
		c.Keys = filepath.Join(c.Data, "keys")
	}
	if c.SecretDir != "" {
		if c.SecretDir, err = filepath.Abs(c.SecretDir); err != nil {
			return c, err
		}
		if st, err := os.Stat(c.SecretDir); err != nil || !st.IsDir() {
			return c, fault.New(fault.Invalid, "There is no folder of secrets "+c.SecretDir+".", "Give --secret-dir a folder that is there.").At("secret_dir")
		}
	}
	if c.Listen == "" {
		c.Listen = DefaultListen
	}
	if c.Region == "" {
		c.Region = "ae"
	}
	if c.Postgres, err = verified(c.Postgres); err != nil {
		return c, err
	}
	if !regionForm.MatchString(c.Region) {
		return c, fault.New(fault.Invalid, "'"+c.Region+"' is not a region.", "Give the two-letter country code in lower case: --region ae.").At("region")
	}
	if c.LogLevel == "" {
		c.LogLevel = "info"
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return c, fault.New(fault.Invalid, "'"+c.Listen+"' is not an address.", "Use HOST:PORT, for example "+DefaultListen+".").At("listen")
	}
	if err := c.secure(host); err != nil {
		return c, err
	}
	if strings.ContainsAny(c.Region, " \t\n") {
		return c, fault.New(fault.Invalid, "A region is one word.", "").At("region")
	}
	return c, nil
}

// The words of Config.TLS; anything else names two files.
const (
	tlsOff  = "off"
	tlsAuto = "auto"
)

// secure settles TLS: nothing but loopback without it, and no open mode beyond loopback.
func (c *Config) secure(host string) error {
	switch c.TLS {
	case "":
		c.TLS = tlsOff
	case tlsOff, tlsAuto:
	default:
		cert, key, ok := strings.Cut(c.TLS, ",")
		cert, key = strings.TrimSpace(cert), strings.TrimSpace(key)
		if !ok || cert == "" || key == "" || strings.Contains(key, ",") {
			return fault.New(fault.Invalid, "'"+c.TLS+"' is no way to do TLS.", "Give --tls auto, --tls CERT.pem,KEY.pem, or --tls off on loopback.").At("tls")
		}
		c.TLS = cert + "," + key
	}
	if loopbackHost(host) {
		return nil
	}
	if c.TLS == tlsOff {
		return fault.New(fault.Invalid, "'"+c.Listen+"' is not loopback, and without TLS everybody on the way could read tokens and data.",
			"Give --tls auto (a certificate by falaj's own CA) or --tls CERT.pem,KEY.pem, and --host NAME for each name that clients use; or listen on 127.0.0.1.").At("listen")
	}
	if c.Open {
		return fault.New(fault.Invalid, "Open mode asks nobody for a token, and '"+c.Listen+"' is not loopback.", "Leave out --open, or listen on 127.0.0.1.").At("open")
	}
	return nil
}

// files are the certificate and the key of TLS by files.
func (c Config) files() (cert, key string, ok bool) { return strings.Cut(c.TLS, ",") }

func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// everywhere says whether an address to listen on stands for all of the machine.
func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// names are the Host headers accepted beside loopback ones: those given, and the one address that is listened on.
// A page that resolves its own name to us sends that name, never an address, so the address is safe to accept.
func (c Config) names() []string {
	out := slices.Clone(c.Hosts)
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && !everywhere(host) && !loopbackHost(host) && !slices.Contains(out, host) {
		out = append(out, host)
	}
	return out
}
