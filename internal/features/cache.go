package features

import (
	"maps"
	"sync"
)

// cacheLimit bounds the entities that stay decoded for one view: about 200 bytes each and 8 more for a feature.
const cacheLimit = 20000

// answer is a decoded Found: it holds for every instant in [since, until).
type answer struct {
	ok           bool
	event        int64
	values       []float64
	since, until int64
}

// cache keeps the latest answer for each entity of one view. Because an answer knows how long it holds, a hit is exact
// at any instant, in a replay too.
type cache struct {
	mu      sync.RWMutex // guards all below
	entries map[[KeySize]byte]answer
	puts    int   // writes in progress
	epoch   int64 // counts finished writes
}

func newCache() *cache { return &cache{entries: map[[KeySize]byte]answer{}} }

func (c *cache) get(k [KeySize]byte, at int64) (answer, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	a, ok := c.entries[k]
	return a, ok && a.since <= at && at < a.until
}

// ticket is taken before the store is read; keep refuses answers that a write may have overtaken since.
func (c *cache) ticket() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.epoch
}

func (c *cache) keep(ticket int64, k [KeySize]byte, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.puts > 0 || c.epoch != ticket {
		return
	}
	if _, have := c.entries[k]; !have && len(c.entries) >= cacheLimit {
		for victim := range c.entries { // any one: Go's order is random
			delete(c.entries, victim)
			break
		}
	}
	c.entries[k] = a
}

// writing brackets a Put: between the two calls nothing is kept, and after it the written entities are read anew.
func (c *cache) writing(versions []Version) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.puts++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.puts--
		c.epoch++
		if len(versions) > len(c.entries) {
			maps.DeleteFunc(c.entries, func([KeySize]byte, answer) bool { return true })
			return
		}
		for i := range versions {
			delete(c.entries, versions[i].Key)
		}
	}
}
