// Package cli is the command line: one file per command, and each talks to the server's API like any client.
// Data goes to stdout, words to stderr; errors say what, why and what to type next; the exit code names the kind.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"falaj/internal/app"
	"falaj/internal/kernel/fault"
)

// env is what every command works with.
type env struct {
	in       io.Reader
	out      io.Writer // data
	err      io.Writer // words
	json     bool
	server   string
	token    string
	ca       string // file
	project  string
	colorful bool
}

// Main runs one command and returns its exit code (STYLE.md section 4).
func Main(args []string, in io.Reader, out, errw io.Writer) int {
	if len(args) > 1 && args[0] == "worker" {
		return app.Worker(args[1], in, errw)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := &env{in: in, out: out, err: errw, colorful: os.Getenv("NO_COLOR") == "" && isTerminal(errw)}
	root := e.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	return e.report(err)
}

// usage marks errors of the command line itself.
type usage struct{ error }

func (e *env) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "falaj",
		Short:         "The MLOps control plane you can carry into a closed building",
		Long:          "falaj leads data to models and models to the people who use them, and keeps the record.\n\nStart: falaj demo flights        (the whole story on real data)\n       falaj server              (an empty control plane on " + app.DefaultListen + ")",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       app.Version,
	}
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetIn(e.in)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	f := root.PersistentFlags()
	f.BoolVar(&e.json, "json", false, "print JSON on stdout")
	f.StringVar(&e.server, "server", "", "address of the server (default: FALAJ_SERVER, then `falaj login`'s, then http://"+app.DefaultListen+")")
	f.StringVar(&e.ca, "ca", "", "PEM file of the CA that vouches for an https:// server (default: FALAJ_CA, then `falaj login`'s, then the system's)")
	f.StringVar(&e.project, "project", "", "project (default: FALAJ_PROJECT, falaj.yaml's, or default)")
	root.AddCommand(e.serverCmd(), e.loginCmd(), e.doctorCmd(), e.policyCmd(), e.auditCmd(), e.configCmd(), e.caCmd(), e.demoCmd(),
		e.planCmd(), e.applyCmd(), e.runCmd(), e.retrainCmd(), e.statusCmd(), e.whyCmd(), e.logsCmd(), e.userCmd(), e.webhookCmd(), e.dataCmd(), e.evidenceCmd(), e.roleCmd(), e.tokenCmd(), e.runtimeCmd(), e.secretCmd(), e.keysCmd(),
		e.promoteCmd(), e.approveCmd(), e.rejectCmd(), e.rollbackCmd(), e.backupCmd(), e.restoreCmd())
	return root
}

// report prints what, why and what to type next, and gives the exit code.
func (e *env) report(err error) int {
	var u usage
	if errors.As(err, &u) {
		fmt.Fprintf(e.err, "%s\n`falaj --help` lists the commands and flags.\n", u.Error())
		return 2
	}
	var silent exitCode
	if errors.As(err, &silent) {
		return int(silent)
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(e.err, "Interrupted. What the server has begun goes on; the same command again takes it up.")
		return 1
	}
	var f *fault.E
	if !errors.As(err, &f) {
		if isCobraUsage(err) {
			fmt.Fprintf(e.err, "%s\n`falaj --help` lists the commands and flags.\n", err)
			return 2
		}
		fmt.Fprintln(e.err, err)
		return 1
	}
	if e.json {
		_ = printJSON(e.out, map[string]string{"error": f.Public, "kind": string(f.Kind), "next": f.Next, "field": f.Field})
	}
	fmt.Fprintln(e.err, e.paint(red, f.Public))
	if f.Next != "" {
		fmt.Fprintln(e.err, f.Next)
	}
	return f.Kind.Exit()
}

// isCobraUsage recognises what cobra itself complains about; it has no type for that.
func isCobraUsage(err error) bool {
	for _, p := range []string{"unknown command", "accepts ", "requires ", "unknown flag", "required flag"} {
		if s := err.Error(); len(s) >= len(p) && s[:len(p)] == p {
			return true
		}
	}
	return false
}

// exitCode ends a command that has said everything already.
type exitCode int

func (exitCode) Error() string { return "exit" }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
