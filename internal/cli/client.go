package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"falaj/internal/api"
	"falaj/internal/app"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
)

// client speaks falaj's API with a token.
type client struct {
	base  string
	token string
	http  *http.Client
	wrong error // why nothing may be sent at all
}

// credentials is what `falaj login` keeps, 0600.
type credentials struct {
	Server string `json:"server"`
	Token  string `json:"token"`
	User   string `json:"user"`
	CA     string `json:"ca,omitempty"` // the certificate that vouches for the server, in PEM; empty: the system's
}

func credentialsFile() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fault.Wrap(err, fault.Invalid, "There is no home folder for the credentials.", "Set XDG_CONFIG_HOME, or FALAJ_TOKEN.")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "falaj", "credentials.json"), nil
}

func loadCredentials() credentials {
	var c credentials
	path, err := credentialsFile()
	if err != nil {
		return c
	}
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &c) != nil {
		return credentials{}
	}
	return c
}

func saveCredentials(c credentials) (string, error) {
	path, err := credentialsFile()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, b, 0o600)
}

// client finds server and token: flags, environment, login, default.
func (e *env) client() *client {
	saved := loadCredentials()
	server := first(e.server, os.Getenv("FALAJ_SERVER"), saved.Server, "http://"+app.DefaultListen)
	token := first(e.token, os.Getenv("FALAJ_TOKEN"))
	if token == "" && (saved.Server == server || saved.Server == "") {
		token = saved.Token
	}
	ca, err := e.authority(server)
	return newClient(server, token).trusting(ca, err)
}

func newClient(server, token string) *client {
	return &client{base: strings.TrimSuffix(server, "/"), token: token, http: &http.Client{Timeout: 10 * time.Minute}}
}

func first(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// call sends in as JSON (nil: no body) and decodes the answer into out (nil: ignored). Path is below /api/falaj/v1.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	return c.send(ctx, method, api.Base+path, "application/json", body, out)
}

// send decodes the answer into out: JSON, or *[]byte as it is.
func (c *client) send(ctx context.Context, method, path, contentType string, body io.Reader, out any) error {
	resp, err := c.do(ctx, c.http, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
	if raw, ok := out.(*[]byte); ok {
		*raw, err = io.ReadAll(resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// stream posts in as JSON and gives the answer as it comes, however long it takes.
func (c *client) stream(ctx context.Context, path string, in any) (*http.Response, error) {
	b, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	patient := *c.http
	patient.Timeout = 0
	return c.do(ctx, &patient, http.MethodPost, api.Base+path, "application/json", bytes.NewReader(b))
}

// do gives an answer that is none of the errors.
func (c *client) do(ctx context.Context, by *http.Client, method, path, contentType string, body io.Reader) (*http.Response, error) {
	if c.wrong != nil {
		return nil, c.wrong
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "'"+c.base+"' is not an address of a server.", "Use --server http://HOST:PORT.")
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := by.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < 400 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.Proto == "HTTP/1.0" && resp.StatusCode == http.StatusBadRequest && strings.HasPrefix(c.base, "http://") { // so answers a TLS port in clear
		return nil, fault.New(fault.Invalid, "The server at "+c.base+" speaks TLS only.", "Name it https://"+strings.TrimPrefix(c.base, "http://")+" by --server or FALAJ_SERVER, with its certificate: --ca FILE.")
	}
	return nil, problemOf(resp)
}

func (c *client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if f := c.distrust(err); f != nil {
		return f
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fault.Wrap(err, fault.Unavailable, "No falaj answers at "+c.base+".", "Start it with `falaj server`, or name another with --server or FALAJ_SERVER.")
	}
	return fault.Wrap(err, fault.Unavailable, "The server at "+c.base+" did not answer: "+err.Error(), "Try again; `falaj doctor` names what is wrong.")
}

// problemOf turns an error answer back into the fault it was.
func problemOf(resp *http.Response) error {
	var p door.ProblemBody
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := json.Unmarshal(b, &p); err != nil || p.Detail == "" {
		return fault.New(fault.Unavailable, "The server answered "+resp.Status+".", "")
	}
	kind := fault.Kind(p.Code)
	for _, k := range fault.Kinds() {
		if k == kind {
			f := fault.New(k, p.Detail, p.Next)
			return f.At(p.Field)
		}
	}
	return fault.New(fault.Unavailable, p.Detail, p.Next)
}

// in is the path of a project.
func in(project string, parts ...string) string {
	p := "/projects/" + url.PathEscape(project)
	for _, x := range parts {
		p += "/" + url.PathEscape(x)
	}
	return p
}
