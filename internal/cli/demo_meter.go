package cli

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// meter watches how much memory a process takes with all that it started, and this process: a page that several share is
// counted once (proportional set size), and the files that the server keeps in memory. Where there is no /proc it knows
// nothing.
type meter struct {
	quit chan struct{}
	once sync.Once
	mu   sync.Mutex // guards most
	most int64      // bytes
}

func watch(pid int, files string) *meter {
	m := &meter{quit: make(chan struct{})}
	go func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			n := resident(pid) + sizeUnder(files)
			m.mu.Lock()
			m.most = max(m.most, n)
			m.mu.Unlock()
			select {
			case <-m.quit:
				return
			case <-tick.C:
			}
		}
	}()
	return m
}

func (m *meter) stop() { m.once.Do(func() { close(m.quit) }) }

func (m *meter) peak() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.most
}

// resident sums a process, its descendants and this process, in bytes.
func resident(pid int) int64 {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	parent := map[int]int{}
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		if f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]); len(f) > 1 {
			parent[p], _ = strconv.Atoi(string(f[1]))
		}
	}
	sum := proportional(os.Getpid())
	for p := range parent {
		for q, depth := p, 0; q > 1 && depth < 64; q, depth = parent[q], depth+1 {
			if q == pid {
				sum += proportional(p)
				break
			}
		}
	}
	return sum
}

// proportional is a process's resident memory with its share of what it shares, in bytes (proc(5), smaps_rollup).
func proportional(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte("\nPss:"))
	kib, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
	n, _ := strconv.ParseInt(string(kib), 10, 64)
	return n << 10
}

// sizeUnder sums the files below a folder; what vanishes meanwhile is not counted.
func sizeUnder(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if st, err := e.Info(); err == nil {
				sum += st.Size()
			}
		}
		return nil
	})
	return sum
}
