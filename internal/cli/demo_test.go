package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"falaj/internal/kernel/seal/sealtest"
)

// stage is where the demo is played: a built falaj, a data directory and an address of its own.
type stage struct {
	t      *testing.T
	falaj  string
	data   string
	temp   string // the server's temporary folder
	listen string
	args   []string
}

// planted gives the year of flights with canaries for tail numbers.
func planted(t *testing.T) string {
	t.Helper()
	from, to := os.Getenv("FALAJ_FLIGHTS"), t.TempDir()
	if from == "" {
		out, err := exec.Command("../../scripts/flights.sh").Output()
		if err != nil {
			t.Fatalf("scripts/flights.sh: %v", err)
		}
		from = strings.TrimSpace(string(out))
	}
	b, err := os.ReadFile(filepath.Join(from, "flights.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	column := -1
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ",") // no field of this file is quoted
		if column < 0 {
			column = slices.Index(f, "tailnum")
		} else if f[column] != "NA" {
			f[column] = canary + f[column]
		}
		out.WriteString(strings.Join(f, ","))
	}
	weather, err := os.ReadFile(filepath.Join(from, "weather.csv"))
	if err := errors.Join(err, os.WriteFile(filepath.Join(to, "flights.csv"), out.Bytes(), 0o600), os.WriteFile(filepath.Join(to, "weather.csv"), weather, 0o600)); err != nil {
		t.Fatal(err)
	}
	return to
}

// inClear names the files that hold a canary, beside the user's own: the demo's project folder, and installed packages.
func (s *stage) inClear() []string {
	return append(sealtest.Search(s.data, []string{canary}, "demo/flights", "demo/months", "runtimes"), sealtest.Search(s.temp, []string{canary})...)
}

// command is falaj with the temporary folder that is searched.
func (s *stage) command() *exec.Cmd {
	cmd := exec.Command(s.falaj, s.args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+s.temp)
	return cmd
}

type told struct {
	Chapters []struct {
		Step  int
		Text  string
		Link  string
		Facts map[string]any
	}
}

func soak() bool { return os.Getenv("FALAJ_SOAK") != "" }

// canary begins every tail number of the played year: an identifier, and no feature, so that the story stays the same.
const canary = "zq7canary-"

// newStage builds falaj and lays out the year of flights, from FALAJ_FLIGHTS or fetched, with the canaries planted.
func newStage(t *testing.T) *stage {
	t.Helper()
	if testing.Short() {
		t.Skip("plays for minutes")
	}
	s := &stage{t: t, falaj: filepath.Join(t.TempDir(), "falaj"), data: filepath.Join(t.TempDir(), "data"), temp: t.TempDir()}
	if out, err := exec.Command("go", "build", "-o", s.falaj, "falaj/cmd/falaj").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.listen = l.Addr().String()
	l.Close()
	s.args = []string{"demo", "flights", "--fast", "--json", "--data", s.data, "--listen", s.listen, "--input", planted(t)}
	t.Cleanup(s.stop)
	return s
}

// pid of the server; 0 when there is none.
func (s *stage) pid() int {
	b, err := os.ReadFile(filepath.Join(s.data, "demo", "server.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if pid > 0 && syscall.Kill(pid, 0) == nil {
		return pid
	}
	return 0
}

// stop ends the server and waits until it is gone.
func (s *stage) stop() {
	pid := s.pid()
	if pid == 0 {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	for range 200 {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		time.Sleep(50 * time.Millisecond) // a process that is not our child cannot be waited for
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// play runs the command to its end and gives what it told.
func (s *stage) play() told {
	s.t.Helper()
	var out, words bytes.Buffer
	cmd := s.command()
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(s.data, "demo", "server.log"))
		s.t.Fatalf("%v\n%s\nserver's log:\n%s", err, words.String(), log)
	}
	s.t.Logf("%s", words.String())
	var got told
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		s.t.Fatalf("%v in %s", err, out.String())
	}
	return got
}

// playAndKill runs the command, and some time after it has told a number of chapters it kills it and its server without
// warning. It says how many chapters had been told by then, and whether the command had ended before.
func (s *stage) playAndKill(chapters int, later time.Duration) (heard int, whole bool) {
	s.t.Helper()
	cmd := s.command()
	words, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	reached, closed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		for lines := bufio.NewScanner(words); lines.Scan(); {
			if chapterLine.MatchString(lines.Text()) {
				if heard++; heard == chapters {
					close(reached)
				}
			}
		}
	}()
	select {
	case <-reached:
	case <-closed:
	}
	time.Sleep(later) // the instant is what the test is about
	_ = cmd.Process.Kill()
	<-closed // Wait closes the pipe
	err = cmd.Wait()
	if pid := s.pid(); pid > 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
		for syscall.Kill(pid, 0) == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	return heard, err == nil
}

var chapterLine = regexp.MustCompile(`^ *\d+ \d+:\d\d  `)

func (g told) step(t *testing.T, n int) map[string]any {
	t.Helper()
	for _, c := range g.Chapters {
		if c.Step == n {
			return c.Facts
		}
	}
	t.Fatalf("step %d was not told", n)
	return nil
}

func (g told) number(t *testing.T, step int, fact string) float64 {
	t.Helper()
	f, ok := g.step(t, step)[fact].(float64)
	if !ok {
		t.Fatalf("step %d tells no number %s: %v", step, fact, g.step(t, step))
	}
	return f
}

func (g told) text(t *testing.T, step int, fact string) string {
	t.Helper()
	return fmt.Sprint(g.step(t, step)[fact])
}

// get asks the server as somebody of the story.
func (s *stage) get(who, path string, out any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", "http://"+s.listen+"/api/falaj/v1/projects/flights/"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token(who))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s", path, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) token(who string) string {
	s.t.Helper()
	name := filepath.Join(s.data, "demo", "people.json")
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		s.t.Fatalf("people.json: %v, %v", st.Mode(), err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		s.t.Fatal(err)
	}
	var people map[string]json.RawMessage
	var p struct{ Token string }
	if err := json.Unmarshal(b, &people); err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(people[who], &p); err != nil || p.Token == "" {
		s.t.Fatalf("no token of %s: %v", who, err)
	}
	return p.Token
}

// standing is what must be the same whatever was killed: the changes, oldest first, the answers to callers, and how many
// versions the model has.
type standing struct {
	Changes  []string
	Answered int
	Versions int
}

func (s *stage) standing() (out standing) {
	s.t.Helper()
	var changes struct {
		Items []struct {
			Verb, Environment, State string
			Requester                struct{ Name string }
		}
	}
	s.get("layla", "changes", &changes)
	for i := len(changes.Items) - 1; i >= 0; i-- {
		c := changes.Items[i]
		out.Changes = append(out.Changes, c.Verb+" "+c.Environment+" "+c.State+" by "+c.Requester.Name)
	}
	var traffic struct {
		Items []struct {
			Shadow      bool
			Predictions int
		}
	}
	s.get("layla", "models/delay/traffic", &traffic)
	for _, r := range traffic.Items {
		if !r.Shadow {
			out.Answered += r.Predictions
		}
	}
	var model struct {
		VersionList []json.RawMessage `json:"version_list"`
	}
	s.get("layla", "models/delay", &model)
	out.Versions = len(model.VersionList)
	return out
}

// clean has the whole record verified by the command line, as an auditor would.
func (s *stage) clean() {
	s.t.Helper()
	cmd := exec.Command(s.falaj, "audit", "verify", "--server", "http://"+s.listen)
	cmd.Env = append(os.Environ(), "FALAJ_TOKEN="+s.token("admin"), "XDG_CONFIG_HOME="+s.t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "clean: ") {
		s.t.Errorf("audit verify: %v, %s", err, out)
	}
}

// TestDemoTellsTheStory plays the short cut and holds each chapter to STORY.md; a second call finds everything and adds nothing.
func TestDemoTellsTheStory(t *testing.T) {
	s := newStage(t)
	quit, found := make(chan struct{}), make(chan []string)
	go func() {
		var hits []string
		for len(hits) == 0 {
			select {
			case <-quit:
				found <- hits
				return
			case <-time.After(2 * time.Second):
				hits = s.inClear()
			}
		}
		<-quit
		found <- hits
	}()
	g := s.play()
	close(quit)
	if hits := append(<-found, s.inClear()...); len(hits) > 0 {
		t.Errorf("data of flights lies in clear: %v", hits)
	}
	for _, want := range []struct {
		step     int
		fact     string
		from, to float64
	}{
		{0, "flights", 336776, 336776}, {0, "hours", 26115, 26115},
		{2, "rows", 80789, 80789}, {2, "weather_rows", 6462, 6462},
		{3, "rows", 9390, 9390}, {3, "of", 28330, 28330}, {3, "shown", 5, 5},
		{4, "version", 2, 2}, {4, "rows", 336776, 336776},
		{5, "version", 1, 1}, {5, "rows", 77606, 77606}, {5, "test_auc", .74, .755},
		{8, "version", 2, 2}, {8, "test_auc", g.number(t, 5, "test_auc"), g.number(t, 5, "test_auc")},
		{12, "version", 3, 3}, {14, "version", 4, 4},
		{18, "test_auc", .73, .76}, {20, "peak_mib", 1, 1024},
	} {
		if got := g.number(t, want.step, want.fact); got < want.from || got > want.to {
			t.Errorf("step %d: %s is %v, not in %v to %v", want.step, want.fact, got, want.from, want.to)
		}
	}
	for _, want := range []struct {
		step       int
		fact, text string
	}{
		{3, "scope", "refused"},
		{7, "state", "closed"}, {7, "tests", "map[behaviour:9 integration:8 unit:12]"}, {7, "passed", "0 of 7500 values differ"}, {7, "passed", "scan"},
		{8, "state", "refused"}, {8, "failed", "delays are understood as minutes"},
		{9, "denied", "The requester of a change may not approve it"},
		{10, "state", "closed"},
		{13, "alert", "quality.degraded"},
		{15, "state", "rolling_out"}, {15, "passed", "of its own rows asked one by one"},
		{18, "state", "refused"}, {18, "failed", "not better than delay@4"}, {18, "environment", "production"},
		{19, "verified", "true"}, {19, "champion", "4"},
	} {
		if got := g.text(t, want.step, want.fact); !strings.Contains(got, want.text) {
			t.Errorf("step %d: %s is %q, without %q", want.step, want.fact, got, want.text)
		}
	}
	if all, hits := g.number(t, 6, "steps"), g.number(t, 6, "cached"); all != hits {
		t.Errorf("training again ran %v of %v steps", all-hits, all)
	}
	var canary []any
	for _, c := range g.Chapters {
		if w, ok := c.Facts["weights"]; ok {
			canary = w.([]any)
		}
	}
	if fmt.Sprint(canary) != "[5 25 100]" {
		t.Errorf("the canary took %v", canary)
	}
	first := s.standing()
	if first.Answered != int(g.number(t, 19, "predictions")) || first.Answered < 35000 {
		t.Errorf("%d predictions, the driver counts %v", first.Answered, g.number(t, 19, "predictions"))
	}
	s.clean()
	again := s.play()
	if got := s.standing(); fmt.Sprint(got) != fmt.Sprint(first) {
		t.Errorf("a second call made of\n%v\nthis:\n%v", first, got)
	}
	if took := again.number(t, 20, "seconds"); took > 30 {
		t.Errorf("a second call took %.0f s", took)
	}
}

// TestDemoGoesOnAfterKills kills driver and server at 20 random instants, spread over the story, and lets the command go on:
// nothing is doubled, nothing is missing, and the record is whole. In make soak it is the whole year.
func TestDemoGoesOnAfterKills(t *testing.T) {
	s := newStage(t)
	kills, last := 20, 14 // the chapter of the short story after which the last kill comes, well before its end
	if soak() {
		s.args = slices.DeleteFunc(s.args, func(a string) bool { return a == "--fast" })
		last = 20
	}
	for i := range kills {
		chapters, later := 1+i*last/kills, time.Duration(rand.N(4000))*time.Millisecond
		heard, whole := s.playAndKill(chapters, later)
		t.Logf("kill %d, %v after chapter %d; %d were told", i+1, later, chapters, heard)
		if hits := s.inClear(); len(hits) > 0 {
			t.Errorf("after kill %d data of flights lies in clear: %v", i+1, hits)
		}
		if whole {
			t.Fatalf("the story ended before kill %d", i+1)
		}
	}
	g := s.play()
	if v := g.text(t, 19, "verified"); v != "true" {
		t.Errorf("verified: %s", v)
	}
	got := s.standing()
	if sent := int(g.number(t, 20, "predictions")); got.Answered != sent {
		t.Errorf("%d flights were sent, %d predictions are in the log", sent, got.Answered)
	}
	want := []string{"promote staging closed by layla", "promote staging refused by layla", "promote production closed by layla"}
	for i, w := range want {
		if i >= len(got.Changes) || got.Changes[i] != w {
			t.Fatalf("the changes are %v, beginning with %v was expected", got.Changes, want)
		}
	}
	count := map[string]int{}
	for _, c := range got.Changes {
		count[c]++
	}
	if count["promote production refused by layla"] != 1 || count["promote staging closed by layla"] != 2 {
		t.Errorf("the changes are %v", got.Changes)
	}
	s.clean()
}
