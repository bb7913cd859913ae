package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"falaj/internal/api"
	"falaj/internal/app"
	"falaj/internal/kernel/fault"
	"falaj/internal/secret"
)

// secretCmd manages the project's secrets. A value comes from stdin or is asked for: an argument would stand in the
// shell's history and in the list of processes.
func (e *env) secretCmd() *cobra.Command {
	c := &cobra.Command{Use: "secret", Short: "The project's secrets, which falaj.yaml refers to as secret://NAME"}
	one := func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage{errors.New("name one secret; its value is never an argument, it is asked for or read from stdin")}
		}
		return nil
	}
	set := &cobra.Command{Use: "set NAME", Short: "Set a secret, or give it a new value; it is asked for, or read from stdin", Args: one, RunE: func(cmd *cobra.Command, args []string) error {
		value, err := e.secretValue(args[0])
		if err != nil {
			return err
		}
		var s api.Secret
		if err := e.client().call(cmd.Context(), "PUT", in(e.projectName(), "secrets", args[0]), map[string]string{"value": value}, &s); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, s)
		}
		e.say("%s has version %d. In falaj.yaml, under train: secrets: {%s: secret://%s}", s.Name, s.Version, s.Name, s.Name)
		return nil
	}}
	list := &cobra.Command{Use: "list", Short: "List the secrets; never their values", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var p api.Page[api.Secret]
		if err := e.client().call(cmd.Context(), "GET", in(e.projectName(), "secrets"), nil, &p); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, p.Items)
		}
		rows := [][]string{}
		for _, s := range p.Items {
			rows = append(rows, []string{s.Name, fmt.Sprint(s.Version), s.Actor.Name, time.UnixMicro(s.SetAt).UTC().Format("2006-01-02 15:04")})
		}
		return e.table([]string{"NAME", "VERSION", "SET BY", "AT"}, rows)
	}}
	remove := &cobra.Command{Use: "remove NAME", Short: "Forget a secret", Args: one, RunE: func(cmd *cobra.Command, args []string) error {
		if err := e.client().call(cmd.Context(), "DELETE", in(e.projectName(), "secrets", args[0]), nil, nil); err != nil {
			return err
		}
		e.say("%s is forgotten; steps that refer to it will fail.", args[0])
		return nil
	}}
	c.AddCommand(set, list, remove)
	return c
}

// secretValue asks for a value without echo, or reads all of stdin; the end of the last line does not belong to it.
func (e *env) secretValue(name string) (string, error) {
	var b []byte
	var err error
	if f, ok := e.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(e.err, "Value of %s: ", name)
		b, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(e.err)
	} else {
		b, err = io.ReadAll(io.LimitReader(e.in, secret.MaxSize+3))
	}
	if err != nil {
		return "", err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" || !utf8.ValidString(text) {
		return "", fault.New(fault.Invalid, "No value was given, or it is not UTF-8 text.", "Pipe it: falaj secret set "+name+" < FILE (what is no text: as Base64)")
	}
	return text, nil
}

// keysCmd works on the folders of a server that is stopped, not through the server.
func (e *env) keysCmd() *cobra.Command {
	c := &cobra.Command{Use: "keys", Short: "The keyset that seals the data"}
	var cfg app.Config
	rotate := &cobra.Command{Use: "rotate", Short: "Make a new key-encryption key and wrap every data key with it; the server is stopped meanwhile", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		log, err := logger(e.err, "warn")
		if err != nil {
			return err
		}
		r, err := app.RotateKeys(cmd.Context(), cfg, log)
		if err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, r)
		}
		if r.Resumed {
			e.say("An interrupted rotation was finished.")
		}
		e.say("%d data keys are wrapped by key %d now; the older ones are disabled. Back up %s, apart from the data.", r.DataKeys, r.Key, r.Folder)
		return nil
	}}
	rotate.Flags().StringVar(&cfg.Data, "data", "", "data directory")
	rotate.Flags().StringVar(&cfg.Keys, "keys", "", "folder of the keyset")
	rotate.Flags().StringVar(&cfg.Postgres, "postgres", "", "PostgreSQL address instead of SQLite")
	c.AddCommand(rotate)
	return c
}
