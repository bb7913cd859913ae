package app

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"falaj/internal/api"
	"falaj/internal/kernel/fault"
)

// regionForm is what a region may be called: the same as in falaj.yaml.
var regionForm = regexp.MustCompile(`^[a-z]{2}$`)

// settle binds a data directory to the region where it was made: started elsewhere, it would carry its projects out of
// theirs without a word.
func settle(dir, region string) error {
	path := filepath.Join(dir, "REGION")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.WriteFile(path, []byte(region+"\n"), 0o600)
	case err != nil:
		return err
	}
	if was := strings.TrimSpace(string(b)); was != region {
		return fault.New(fault.Refused, "The data directory "+dir+" belongs to region '"+was+"', and this server says that it stands in '"+region+"'.",
			"Start it with --region "+was+" where it stands there. Data moves by an export, which is decided and recorded.").At("region")
	}
	return nil
}

// places lists where this installation keeps bytes. All of it stands in one region; so do the keys.
func (a *App) places() []api.Store {
	in := func(name, holds string, sealed bool) api.Store {
		s := api.Store{Name: name, Holds: holds, Region: a.cfg.Region}
		if sealed {
			s.KeyRegion = a.cfg.Region
		}
		return s
	}
	db := "falaj.db"
	if a.cfg.Postgres != "" {
		db = "postgresql"
	}
	return []api.Store{
		in(db, "names, definitions, parameters, metrics, the record", false),
		in(db+" (sealed columns)", "profiles, quarantines, step logs, cached results, labels, webhook secrets", true),
		in("flow.db", "inputs and results of workflows", true),
		in("catalog.db", "names and snapshots of tables", false),
		in("online.db", "online features", true),
		in("blobs", "sources, tables, models, artifacts, logs, prediction segments", true),
		in("predictions", "predictions not yet in a segment", true),
		in("scratch", "decrypted working files, in memory unless --scratch says otherwise", false),
		in("keys", "the keyset", false),
	}
}
