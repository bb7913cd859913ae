package cli

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"
)

// meter watches how much memory a process takes with all that it started: resident pages, shared ones counted for each.
// Where there is no /proc it knows nothing.
type meter struct {
	quit chan struct{}
	once sync.Once
	mu   sync.Mutex // guards most
	most int64      // bytes
}

func watch(pid int) *meter {
	m := &meter{quit: make(chan struct{})}
	go func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			n := resident(pid)
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
	parent, pages := map[int]int{}, map[int]int64{}
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) < 22 {
			continue
		}
		parent[p], _ = strconv.Atoi(string(f[1]))
		pages[p], _ = strconv.ParseInt(string(f[21]), 10, 64)
	}
	var sum int64
	for p, n := range pages {
		for q, depth := p, 0; q > 1 && depth < 64; q, depth = parent[q], depth+1 {
			if q == pid {
				sum += n
				break
			}
		}
	}
	return (sum + pages[os.Getpid()]) * int64(os.Getpagesize())
}
