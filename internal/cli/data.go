package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"falaj/internal/api"
	"falaj/internal/data"
	"falaj/internal/kernel/fault"
)

func (e *env) dataCmd() *cobra.Command {
	c := &cobra.Command{Use: "data", Short: "Datasets and their versions"}
	var region string
	export := &cobra.Command{
		Use:   "export DATASET[@VERSION] DIR",
		Short: "Hand a version out as Parquet, without its masked columns; recorded",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, version, _ := strings.Cut(args[0], "@")
			if version == "" {
				version = "0"
			}
			if _, err := strconv.ParseInt(version, 10, 64); err != nil || name == "" {
				return fault.New(fault.Invalid, "'"+args[0]+"' does not name a version.", "Write DATASET@NUMBER, for example flights@2.")
			}
			var x data.Export
			path := in(e.projectName(), "datasets", name, "versions", version, "export") + "?region=" + url.QueryEscape(region)
			resp, err := e.client().stream(cmd.Context(), path, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if err := json.Unmarshal([]byte(resp.Header.Get("Falaj-Export")), &x); err != nil {
				return fault.Wrap(err, fault.Unavailable, "The answer is not an export.", "Is it a falaj of this version? See `falaj status`.")
			}
			if err := keepExport(args[1], x, resp.Body); err != nil {
				return err
			}
			if e.json {
				return printJSON(e.out, x)
			}
			without := ""
			if len(x.LeftOut) > 0 {
				without = ", without " + strings.Join(x.LeftOut, ", ") + " (masked)"
			}
			e.say("%s@%d: %s rows%s", x.Dataset, x.N, thousands(x.Rows), without)
			_, err = fmt.Fprintln(e.out, exportFile(args[1], x))
			return err
		},
	}
	export.Flags().StringVar(&region, "region", "", "where DIR stands, such as ae: it must be one of the project's")
	c.AddCommand(export)
	return c
}

func exportFile(dir string, x data.Export) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%d.parquet", filepath.Base(x.Dataset), x.N))
}

// keepExport writes the file whole or not at all, and beside it what it is.
func keepExport(dir string, x data.Export, body io.Reader) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap(err, fault.Invalid, "The folder "+dir+" could not be made.", "Give a folder that you may write.")
	}
	f, err := os.CreateTemp(dir, ".export-")
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "Nothing can be written in "+dir+".", "Give a folder that you may write.")
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), body); err != nil {
		return fault.Wrap(err, fault.Unavailable, "The export was cut off: "+err.Error(), "Run it again; nothing was kept.")
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != x.SHA256 {
		return fault.New(fault.Unavailable, "The export came damaged: its digest is "+short(got)+", "+short(x.SHA256)+" was announced.", "Run it again; nothing was kept.")
	}
	if err := f.Close(); err != nil {
		return err
	}
	about, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return err
	}
	path := exportFile(dir, x)
	if err := os.WriteFile(strings.TrimSuffix(path, ".parquet")+".json", append(about, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (e *env) evidenceCmd() *cobra.Command {
	c := &cobra.Command{Use: "evidence", Short: "What can be shown to an auditor"}
	c.AddCommand(&cobra.Command{Use: "residency", Short: "Where the project's bytes lie, by which keys, and where they went or were not let go", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var r api.Residency
		if err := e.client().call(cmd.Context(), "GET", in(e.projectName(), "evidence", "residency"), nil, &r); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, r)
		}
		mark := func(ok bool) string {
			if ok {
				return e.paint(green, "inside")
			}
			return e.paint(red, "OUTSIDE")
		}
		fmt.Fprintf(e.out, "%s may lie in %s\n\n", r.Project, strings.Join(r.Allowed, ", "))
		rows := [][]string{}
		for _, s := range r.Stores {
			key := "not sealed"
			if s.KeyRegion != "" {
				key = "key in " + s.KeyRegion
			}
			rows = append(rows, []string{mark(s.OK), s.Name, s.Region, key, s.Holds})
		}
		for _, t := range r.Targets {
			rows = append(rows, []string{mark(t.OK), t.Kind + " " + t.ID, t.Region, "", t.Host})
		}
		if err := e.table([]string{"", "PLACE", "REGION", "KEY", "HOLDS"}, rows); err != nil {
			return err
		}
		for _, part := range []struct {
			title string
			list  []api.Transfer
		}{{"let go", r.Transfers}, {"not let go", r.Denials}} {
			fmt.Fprintf(e.out, "\n%s: %d\n", part.title, len(part.list))
			for _, t := range part.list {
				fmt.Fprintf(e.out, "  %d  %s  %s  %s %s\n", t.Seq, time.UnixMicro(t.At).UTC().Format(time.RFC3339), t.Actor, t.Action, t.Resource)
			}
		}
		if !r.OK {
			return fault.New(fault.Refused, "Something of project "+r.Project+" lies or goes outside of its regions.", "The lines marked OUTSIDE name it.")
		}
		return nil
	}})
	return c
}
