package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"falaj/internal/access"
	"falaj/internal/api"
	"falaj/internal/app"
	"falaj/internal/training"
)

func (e *env) userCmd() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "People who sign in"}
	var groups []string
	var full string
	var own bool
	add := &cobra.Command{Use: "add NAME", Short: "Make a person; the password is asked for, or read from stdin", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		words, err := e.ask(&args[0], "Password: ")
		if err != nil {
			return err
		}
		body := map[string]any{"name": args[0], "full_name": full, "password": words[0], "groups": groups}
		if err := e.client().call(cmd.Context(), "POST", "/users", body, nil); err != nil {
			return err
		}
		e.say("%s can sign in. Give a role: falaj role bind engineer user:%s --project NAME", args[0], args[0])
		return nil
	}}
	add.Flags().StringSliceVar(&groups, "group", nil, "group, such as ml-risk")
	add.Flags().StringVar(&full, "full-name", "", "name as people write it")
	list := &cobra.Command{Use: "list", Short: "List people", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var p api.Page[access.User]
		if err := e.client().call(cmd.Context(), "GET", "/users", nil, &p); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, p.Items)
		}
		rows := [][]string{}
		for _, u := range p.Items {
			state := "active"
			if u.Disabled {
				state = "disabled"
			}
			rows = append(rows, []string{u.Name, u.FullName, fmt.Sprint(u.Groups), state})
		}
		return e.table([]string{"NAME", "FULL NAME", "GROUPS", "STATE"}, rows)
	}}
	disable := &cobra.Command{Use: "disable NAME", Short: "End a person's sessions and tokens at once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if err := e.client().call(cmd.Context(), "DELETE", "/users/"+args[0], nil, nil); err != nil {
			return err
		}
		e.say("%s is disabled.", args[0])
		return nil
	}}
	password := &cobra.Command{Use: "password NAME", Short: "Set a password; it is asked for, or read from stdin", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		prompts := []string{"New password: "}
		if own {
			prompts = []string{"Present password: ", "New password: "}
		}
		words, err := e.ask(&args[0], prompts...)
		if err != nil {
			return err
		}
		body := map[string]string{"new": words[len(words)-1]}
		if own {
			body["old"] = words[0]
		}
		if err := e.client().call(cmd.Context(), "PUT", "/users/"+args[0]+"/password", body, nil); err != nil {
			return err
		}
		e.say("%s has a new password; sessions have ended, tokens have not: falaj token revoke ID", args[0])
		return nil
	}}
	password.Flags().BoolVar(&own, "own", false, "your own: the present one is asked for first")
	c.AddCommand(add, list, disable, password)
	return c
}

// webhookCmd manages where a project's events are delivered.
func (e *env) webhookCmd() *cobra.Command {
	c := &cobra.Command{Use: "webhook", Short: "Where the project's events are delivered"}
	var types []string
	var region string
	add := &cobra.Command{Use: "add URL", Short: "Deliver events, signed; the secret is printed once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		var h api.NewWebhook
		if err := e.client().call(cmd.Context(), "POST", in(e.projectName(), "webhooks"), map[string]any{"url": args[0], "types": types, "region": region}, &h); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, h)
		}
		e.say("%s gets %s. Its secret verifies the header Falaj-Signature:", h.ID, kinds(h.Types))
		_, err := fmt.Fprintln(e.out, h.Secret)
		return err
	}}
	add.Flags().StringVar(&region, "region", "", "where the host stands, such as ae: it must be one of the project's")
	add.Flags().StringSliceVar(&types, "type", nil, "event type or prefix such as change.* (default: all)")
	list := &cobra.Command{Use: "list", Short: "List webhooks", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var p api.Page[api.Webhook]
		if err := e.client().call(cmd.Context(), "GET", in(e.projectName(), "webhooks"), nil, &p); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, p.Items)
		}
		rows := [][]string{}
		for _, h := range p.Items {
			rows = append(rows, []string{h.ID, h.URL, h.Region, kinds(h.Types)})
		}
		return e.table([]string{"ID", "URL", "REGION", "EVENTS"}, rows)
	}}
	one := func(verb, method, short, said string, tail ...string) *cobra.Command {
		return &cobra.Command{Use: verb + " ID", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.client().call(cmd.Context(), method, in(e.projectName(), append([]string{"webhooks", args[0]}, tail...)...), nil, nil); err != nil {
				return err
			}
			e.say(said, args[0])
			return nil
		}}
	}
	c.AddCommand(add, list, one("test", "POST", "Send one test event", "%s took the test event.", "test"), one("remove", "DELETE", "Stop delivering", "%s gets nothing more."))
	return c
}

// kinds says which events a webhook gets.
func kinds(types []string) string {
	if len(types) == 0 {
		return "all events"
	}
	return strings.Join(types, ", ")
}

func (e *env) roleCmd() *cobra.Command {
	c := &cobra.Command{Use: "role", Short: "Who holds which role in a project"}
	act := func(verb, path, said string) *cobra.Command {
		return &cobra.Command{Use: verb + " ROLE PRINCIPAL", Short: said + " a role (viewer, engineer, approver, admin, replayer) for user:NAME, group:NAME or service:NAME", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
			project := e.projectName()
			return e.client().call(cmd.Context(), "POST", path, map[string]string{"project": project, "role": args[0], "principal": args[1]}, nil)
		}}
	}
	list := &cobra.Command{Use: "list", Short: "List the roles of the project", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var p api.Page[access.Binding]
		if err := e.client().call(cmd.Context(), "GET", in(e.projectName(), "bindings"), nil, &p); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, p.Items)
		}
		rows := [][]string{}
		for _, b := range p.Items {
			rows = append(rows, []string{b.Project, string(b.Role), b.Principal})
		}
		return e.table([]string{"PROJECT", "ROLE", "PRINCIPAL"}, rows)
	}}
	c.AddCommand(act("bind", "/bindings", "Give"), act("unbind", "/bindings/remove", "Take away"), list)
	return c
}

func (e *env) tokenCmd() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Tokens for programs"}
	var principal, role, only string
	var ttl time.Duration
	create := &cobra.Command{Use: "create [NAME]", Short: "Make a token; it is printed once", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		body := map[string]any{"principal": principal, "role": role, "project": only, "ttl_seconds": int64(ttl.Seconds())}
		if len(args) == 1 {
			body["name"] = args[0]
		}
		var t api.NewToken
		if err := e.client().call(cmd.Context(), "POST", "/tokens", body, &t); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, t)
		}
		e.say("%s for %s, until %s:", t.ID, t.Principal, t.Expires.Format("2006-01-02 15:04"))
		_, err := fmt.Fprintln(e.out, t.Secret)
		return err
	}}
	create.Flags().StringVar(&principal, "for", "", "user:NAME or service:NAME (default: you)")
	create.Flags().StringVar(&role, "role", "", "at most this role")
	create.Flags().StringVar(&only, "only", "", "only this project")
	create.Flags().DurationVar(&ttl, "expires", access.DefaultTokenTTL, "how long it lives, at most 2160h")
	list := &cobra.Command{Use: "list", Short: "List your tokens", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var p api.Page[access.Token]
		if err := e.client().call(cmd.Context(), "GET", "/tokens", nil, &p); err != nil {
			return err
		}
		if e.json {
			return printJSON(e.out, p.Items)
		}
		rows := [][]string{}
		for _, t := range p.Items {
			state := "until " + t.Expires.Format("2006-01-02")
			if !t.Revoked.IsZero() {
				state = "revoked"
			}
			rows = append(rows, []string{t.ID, t.Name, t.Project, t.Role, state})
		}
		return e.table([]string{"ID", "NAME", "PROJECT", "ROLE", "STATE"}, rows)
	}}
	revoke := &cobra.Command{Use: "revoke ID", Short: "Kill a token at once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return e.client().call(cmd.Context(), "DELETE", "/tokens/"+args[0], nil, nil)
	}}
	c.AddCommand(create, list, revoke)
	return c
}

// runtimeCmd prepares a data directory for a closed site: it works on the folder, not through the server.
func (e *env) runtimeCmd() *cobra.Command {
	c := &cobra.Command{Use: "runtime", Short: "What training runs in"}
	var cfg app.Config
	install := &cobra.Command{Use: "install uv", Short: "Put the pinned uv into the data directory, by its hash", Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"uv"}, RunE: func(cmd *cobra.Command, _ []string) error {
		full, err := cfg.Complete()
		if err != nil {
			return err
		}
		rts, err := training.NewRuntimes(filepath.Join(full.Data, "runtimes"))
		if err != nil {
			return err
		}
		if err := rts.InstallUV(cmd.Context(), training.UVRequest{Wheelhouse: full.Wheelhouse, Progress: func(l string) { e.progress(l) }}); err != nil {
			return err
		}
		e.say("uv is in %s.", filepath.Join(full.Data, "runtimes"))
		return nil
	}}
	install.Flags().StringVar(&cfg.Data, "data", "", "data directory")
	install.Flags().StringVar(&cfg.Wheelhouse, "wheelhouse", "", "folder that holds the wheel, for sites without a package registry")
	c.AddCommand(install)
	return c
}
