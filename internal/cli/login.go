package cli

import (
	"bufio"
	"context"
	"net/http/cookiejar"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"falaj/internal/api"
	"falaj/internal/app"
	"falaj/internal/kernel/fault"
)

// projectName is the project of the command: flag, environment, the falaj.yaml of this folder, default.
func (e *env) projectName() string {
	if p := first(e.project, os.Getenv("FALAJ_PROJECT")); p != "" {
		return p
	}
	var head struct {
		Project string `yaml:"project"`
	}
	if b, err := os.ReadFile("falaj.yaml"); err == nil && yaml.Unmarshal(b, &head) == nil && head.Project != "" {
		return head.Project
	}
	return "default"
}

func (e *env) loginCmd() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "login [SERVER]",
		Short: "Sign in and keep a token for this machine's commands",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			server := first(e.server, os.Getenv("FALAJ_SERVER"), loadCredentials().Server, "http://"+app.DefaultListen)
			if len(args) == 1 {
				server = args[0]
			}
			words, err := e.ask(&user, "Password: ")
			if err != nil {
				return err
			}
			ca, err := e.authority(server)
			token, err := passwordToken(cmd.Context(), newClient(server, "").trusting(ca, err), user, words[0], "falaj login")
			if err != nil {
				return err
			}
			path, err := saveCredentials(credentials{Server: server, Token: token.Secret, User: user, CA: ca})
			if err != nil {
				return err
			}
			e.say("Signed in to %s as %s. The token is in %s and lives until %s.", server, user, path, token.Expires.Format("2006-01-02"))
			return nil
		},
	}
	c.Flags().StringVar(&user, "user", "", "name")
	return c
}

// ask reads name and password: from the terminal without echo, else one line each from stdin.
func (e *env) ask(user *string, prompts ...string) (passwords []string, err error) {
	f, ok := e.in.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	lines := bufio.NewScanner(e.in)
	read := func(prompt string) (string, error) {
		if terminal {
			e.err.Write([]byte(prompt))
		}
		if !lines.Scan() {
			return "", fault.New(fault.Invalid, "No "+strings.TrimSuffix(strings.ToLower(prompt), ": ")+" was given.", "Run `falaj login` in a terminal, or pipe the password: falaj login --user NAME < FILE")
		}
		return lines.Text(), nil
	}
	if *user == "" {
		if *user, err = read("User: "); err != nil {
			return nil, err
		}
	}
	for _, prompt := range prompts {
		word := ""
		if terminal {
			e.err.Write([]byte(prompt))
			var b []byte
			b, err = term.ReadPassword(int(f.Fd()))
			e.err.Write([]byte("\n"))
			word = string(b)
		} else {
			word, err = read(prompt)
		}
		if err != nil {
			return nil, err
		}
		passwords = append(passwords, word)
	}
	return passwords, nil
}

// passwordToken signs in and makes a token; the session is dropped again.
func passwordToken(ctx context.Context, c *client, user, password, name string) (api.NewToken, error) {
	var t api.NewToken
	jar, err := cookiejar.New(nil)
	if err != nil {
		return t, err
	}
	c.http.Jar = jar
	if err := c.call(ctx, "POST", "/login", map[string]string{"user": user, "password": password}, nil); err != nil {
		return t, err
	}
	if err := c.call(ctx, "POST", "/tokens", map[string]string{"name": name}, &t); err != nil {
		return t, err
	}
	return t, c.call(ctx, "POST", "/logout", nil, nil)
}
