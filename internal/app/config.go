// Package app is the only place that builds things: a Config becomes an App that starts and stops.
// It alone imports driver folders and wires the answers that upstream stages ask of downstream ones.
package app

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	// Listen is the HTTP address. Anything but loopback needs TLS, which this version does not have.
	Listen string `yaml:"listen"`
	// Region is where this installation stands (ISO 3166 or your own word); projects' residency is checked against it.
	Region string `yaml:"region"`
	// Postgres is the address of a PostgreSQL database; empty: SQLite in the data directory.
	Postgres string `yaml:"postgres"`
	// Open lets callers on loopback work without a token, as `anonymous`, who never approves.
	Open bool `yaml:"open"`
	// Hosts are names accepted in the Host header beside loopback ones.
	Hosts []string `yaml:"hosts"`
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
	if c.LogLevel == "" {
		c.LogLevel = "info"
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return c, fault.New(fault.Invalid, "'"+c.Listen+"' is not an address.", "Use HOST:PORT, for example "+DefaultListen+".").At("listen")
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return c, fault.New(fault.Invalid, fmt.Sprintf("'%s' is not loopback, and this version has no TLS.", c.Listen), "Listen on 127.0.0.1 or [::1]; put a TLS proxy on the same machine in front, and name it with --host.").At("listen")
	}
	if strings.ContainsAny(c.Region, " \t\n") {
		return c, fault.New(fault.Invalid, "A region is one word.", "").At("region")
	}
	return c, nil
}
