package e2e

import (
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"falaj/internal/store/storetest"
)

// kill -9 at random instants of the mixed load. The server starts by itself each time, and at the end what was acknowledged
// is there once.
func underKills(t *testing.T, flags ...string) {
	l := newLoad(newWorld(t, flags...), false)
	kills := 12
	if soak() {
		kills = 200
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	l.begin()
	slowest := time.Duration(0)
	for n := range kills {
		// An instant of the load, not of the clock: a slow machine is killed as often. Some lives are long enough for what
		// takes seconds, an ingest, to end in them.
		more := 1 + random.IntN(150)
		if n%6 == 3 {
			more += 300
		}
		l.busy(t, more)
		l.kill()
		began := time.Now()
		l.start()
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 30*time.Second {
		t.Errorf("a start took %v", slowest)
	}
	l.busy(t, 50)
	l.end()
	t.Logf("seed %d, %d kills, the slowest start took %v", seed, kills, slowest.Round(time.Millisecond))
	l.check()
}

func TestMixedLoadUnderKills(t *testing.T) {
	t.Parallel()
	underKills(t)
}

func TestMixedLoadUnderKillsOnPostgres(t *testing.T) {
	t.Parallel()
	underKills(t, "--postgres", storetest.PostgresDSN(t))
}

// PostgreSQL is stopped and started under the load, in order and at once. The server stays up, says with 503 what is
// missing, and goes on by itself.
func TestPostgresRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	pg := storetest.NewCluster(t)
	w := &world{server: prepare(t, "", "--postgres", pg.DSN()), dir: filepath.Join(t.TempDir(), "tiny")}
	w.start()
	w.people()
	layProject(t, w.dir)
	l := newLoad(w, true)
	l.begin()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGQUIT} {
		l.busy(t, 100)
		_, _, before := l.counts()
		pg.Stop(sig)
		await(t, "an answer of 503", time.Minute, func() bool {
			_, _, now := l.counts()
			return now > before+10 || l.failure() != nil
		})
		if a := w.call("", "GET", "/healthz", nil); a.status != 200 {
			t.Errorf("the server is not alive while its database is down: %d %v", a.status, a.err)
		}
		w.problem(w.call("", "GET", "/readyz", nil), 503, "database")
		pg.Start()
		began := time.Now()
		await(t, "the server to go on", 30*time.Second, func() bool { return w.call("", "GET", "/readyz", nil).status == 200 })
		t.Logf("%v: goes on %v after PostgreSQL is back", sig, time.Since(began).Round(time.Millisecond))
	}
	l.busy(t, 100)
	select {
	case <-w.exited:
		t.Error("the server ended")
	default:
	}
	l.end()
	l.check()
}
