package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"falaj/internal/api"
	"falaj/internal/kernel/fault"
)

// person is somebody of the story. The password lets a reader sign in to the pages as them.
type person struct {
	Password string `json:"password,omitempty"`
	Token    string `json:"token"`
}

// cast is what the demo keeps outside of the server, 0600: secrets, and which cut of the story this folder holds.
type cast struct {
	Fast  bool   `json:"fast"`
	Admin person `json:"admin"`
	Layla person `json:"layla"`
	Omar  person `json:"omar"`
	Bot   person `json:"replay"`
}

func (d *play) loadCast() (found bool, err error) {
	b, err := os.ReadFile(filepath.Join(d.dir, "people.json"))
	if errors.Is(err, os.ErrNotExist) {
		d.cast = cast{Fast: d.fast, Admin: person{Password: rand.Text()}, Layla: person{Password: rand.Text()}, Omar: person{Password: rand.Text()}}
		return false, d.keepCast()
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(b, &d.cast)
}

func (d *play) keepCast() error {
	b, err := json.MarshalIndent(d.cast, "", "  ")
	if err != nil {
		return err
	}
	return keepFile(filepath.Join(d.dir, "people.json"), b)
}

// startServer finds the server that an earlier call left, or starts one that outlives this command.
func (d *play) startServer(ctx context.Context, listen string) error {
	d.base = "http://" + listen
	pidFile, logFile := filepath.Join(d.dir, "server.pid"), filepath.Join(d.dir, "server.log")
	if b, err := os.ReadFile(pidFile); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && syscall.Kill(pid, 0) == nil && d.ready(ctx) {
			d.pid = pid
			return nil
		}
	}
	if d.ready(ctx) {
		return fault.New(fault.Conflict, "Something else answers at "+listen+".", "Stop it, or give this demo another address: --listen 127.0.0.1:PORT")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "server", "--data", d.data, "--listen", listen) // not CommandContext: it stays when this command ends
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.pid = cmd.Process.Pid
	if err := keepFile(pidFile, []byte(strconv.Itoa(d.pid)+"\n")); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for !d.ready(ctx) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return fault.New(fault.Unavailable, "The server did not start: "+tail(logFile), "Its log: "+logFile)
		case <-limit.C:
			return fault.New(fault.Unavailable, "The server did not become ready within a minute.", "Its log: "+logFile)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func (d *play) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return lastLine(string(b))
}

var setupLink = regexp.MustCompile(`#/setup\?token=(\S+)`)

// firstLink finds the one-use link in the server's log; it is printed a moment after the server answers.
func (d *play) firstLink(ctx context.Context) (string, error) {
	name := filepath.Join(d.dir, "server.log")
	for limit := time.Now().Add(20 * time.Second); ; {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		if links := setupLink.FindAllSubmatch(b, -1); len(links) > 0 {
			return string(links[len(links)-1][1]), nil
		}
		if time.Now().After(limit) {
			return "", fault.New(fault.Unavailable, "The server's log shows no first-start link.", "Its log: "+name)
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// people makes the admin by the first-start link, and lets the admin make the others. What is there stays.
func (d *play) people(ctx context.Context) error {
	var me api.Me
	if err := newClient(d.base, "").call(ctx, "GET", "/me", nil, &me); err != nil {
		return err
	}
	if me.SetupRequired {
		link, err := d.firstLink(ctx)
		if err != nil {
			return err
		}
		// Used in a session, like a person's browser does.
		c, err := session(d.base)
		if err != nil {
			return err
		}
		body := map[string]string{"token": link, "user": "admin", "password": d.cast.Admin.Password}
		if err := c.call(ctx, "POST", "/setup", body, nil); err != nil {
			return err
		}
	}
	if d.cast.Admin.Token == "" {
		t, err := passwordToken(ctx, newClient(d.base, ""), "admin", d.cast.Admin.Password, "falaj demo")
		if err != nil {
			return fault.Wrap(err, fault.Denied, "The server of this data directory does not know the demo's admin.", "Give the demo a folder of its own: --data DIR")
		}
		d.cast.Admin.Token = t.Secret
		if err := d.keepCast(); err != nil {
			return err
		}
	}
	admin := newClient(d.base, d.cast.Admin.Token)
	if err := admin.call(ctx, "POST", "/projects", map[string]any{"name": demoProject, "description": "Will a flight from New York arrive more than 15 minutes late?", "residency": []string{"ae"}}, nil); err != nil {
		return err
	}
	for _, p := range []struct {
		name, full, group, role string
		of                      *person
	}{{"layla", "Layla, engineer", "flights-team", "engineer", &d.cast.Layla}, {"omar", "Omar, model risk", "ml-risk", "approver", &d.cast.Omar}} {
		if p.of.Token != "" {
			continue
		}
		err := admin.call(ctx, "POST", "/users", map[string]any{"name": p.name, "full_name": p.full, "password": p.of.Password, "groups": []string{p.group}}, nil)
		if err != nil && !fault.Is(err, fault.Exists) {
			return err
		}
		if err := admin.call(ctx, "POST", "/bindings", map[string]string{"project": demoProject, "role": p.role, "principal": "user:" + p.name}, nil); err != nil {
			return err
		}
		t, err := passwordToken(ctx, newClient(d.base, ""), p.name, p.of.Password, "falaj demo")
		if err != nil {
			return err
		}
		p.of.Token = t.Secret
		if err := d.keepCast(); err != nil {
			return err
		}
	}
	if d.cast.Bot.Token == "" {
		for _, role := range []string{"engineer", "replayer"} { // engineers may push labels, replayers may set event time
			if err := admin.call(ctx, "POST", "/bindings", map[string]string{"project": demoProject, "role": role, "principal": "service:replay"}, nil); err != nil {
				return err
			}
		}
		var t api.NewToken
		if err := admin.call(ctx, "POST", "/tokens", map[string]string{"principal": "service:replay", "name": "falaj demo", "project": demoProject, "role": "replayer"}, &t); err != nil {
			return err
		}
		d.cast.Bot.Token = t.Secret
		if err := d.keepCast(); err != nil {
			return err
		}
	}
	d.admin, d.layla, d.omar, d.bot = admin, newClient(d.base, d.cast.Layla.Token), newClient(d.base, d.cast.Omar.Token), newClient(d.base, d.cast.Bot.Token)
	return nil
}

func session(base string) (*client, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	c := newClient(base, "")
	c.http = &http.Client{Jar: jar}
	return c, nil
}
