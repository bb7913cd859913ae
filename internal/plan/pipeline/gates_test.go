package pipeline

import (
	"testing"
	"time"

	"falaj/internal/delivery"
	"falaj/internal/monitoring"
)

func stats(n int, nulls uint64, each time.Duration) monitoring.ReleaseStats {
	r := monitoring.ReleaseStats{Count: uint64(n), NullRows: nulls}
	for range n {
		r.Latency.Add(each)
	}
	return r
}

func TestCanaryIsJudged(t *testing.T) {
	t.Parallel()
	fine := time.Millisecond
	for name, c := range map[string]struct {
		canary, champion monitoring.ReleaseStats
		failures         int64
		step             int
		want             delivery.Verdict
		code             string
	}{
		"too little traffic":        {stats(199, 0, fine), stats(1000, 0, fine), 0, 0, delivery.Waiting, "canary.waiting"},
		"enough":                    {stats(200, 0, fine), stats(1000, 0, fine), 0, 0, delivery.Passed, "canary.passed"},
		"the next weight begins":    {stats(200, 0, fine), stats(1000, 0, fine), 0, 1, delivery.Waiting, "canary.waiting"},
		"the next weight has seen":  {stats(400, 0, fine), stats(1000, 0, fine), 0, 1, delivery.Passed, "canary.passed"},
		"fails":                     {stats(200, 0, fine), stats(1000, 0, fine), 5, 0, delivery.Failed, "canary.fails"},
		"fails before enough":       {stats(10, 0, fine), stats(1000, 0, fine), 5, 0, delivery.Failed, "canary.fails"},
		"one failure is no pattern": {stats(200, 0, fine), stats(1000, 0, fine), 1, 0, delivery.Passed, "canary.passed"},
		"blind":                     {stats(200, 200, fine), stats(1000, 0, fine), 0, 0, delivery.Failed, "canary.blind"},
		"slow":                      {stats(200, 0, 40*fine), stats(1000, 0, fine), 0, 0, delivery.Failed, "canary.slow"},
		"a little slower":           {stats(200, 0, 4*fine), stats(1000, 0, fine), 0, 0, delivery.Passed, "canary.passed"},
		"no champion to compare":    {stats(200, 0, 40*fine), monitoring.ReleaseStats{}, 0, 0, delivery.Passed, "canary.passed"},
	} {
		ev := judge(c.canary, c.champion, c.failures, c.step)
		if ev.Verdict != c.want || ev.Note.Code != c.code {
			t.Errorf("%s: %s %s, want %s %s", name, ev.Verdict, ev.Note.Code, c.want, c.code)
		}
	}
}

// Only what cannot carry code is released, by content and not by name.
func TestScan(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, head string
		size       int64
		safe       bool
	}{
		"lightgbm":          {"model.lgb", "tree\nversion=v4\n", 0, true},
		"mlmodel":           {"MLmodel", "flavors:\n", 0, true},
		"yaml":              {"conda.yaml", "name: x\n", 0, true},
		"pickle":            {"model.pkl", "\x80\x04\x95", 0, false},
		"pickle named text": {"model.txt", "\x80\x04\x95\x00", 0, false},
		"text pickle":       {"model.pkl", "cos\nsystem\n(S'id'\ntR.", 0, false},
		"zip named yaml":    {"conda.yaml", "PK\x03\x04\x00", 0, false},
		"script":            {"run.sh", "rm -rf /", 0, false},
		"python":            {"code/loader.py", "import os", 0, false},
		"a cut rune":        {"notes.txt", "ab\xd9", 100, true},
		"a broken rune":     {"notes.txt", "ab\xd9", 3, false},
	} {
		size := c.size
		if size == 0 {
			size = int64(len(c.head))
		}
		if why := suspicious(c.file, []byte(c.head), size); (why == "") != c.safe {
			t.Errorf("%s: %q", name, why)
		}
	}
}
