package monitoring

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/seal"
	"falaj/internal/kernel/who"
	"falaj/internal/serving"
	"falaj/internal/store"
)

// Blobs keeps segments and gives the project's box.
type Blobs interface {
	Put(ctx context.Context, project string, r io.Reader) (blob.Ref, error)
	Open(ctx context.Context, project, digest string) (*blob.Object, error)
	Box(ctx context.Context, project string) (*seal.Box, error)
}

// LogConfig of the prediction log. Zero values take the defaults.
type LogConfig struct {
	Dir         string        // of the spool files; it belongs to one process
	SegmentRows int           // rows that are sealed together: 16,384
	MaxAge      time.Duration // after which fewer are sealed: 1 hour
	SyncEvery   time.Duration // the most that a power loss takes: 100 ms
	Backlog     int           // spool files that may wait for sealing before Record waits: 4
	Patience    time.Duration // how long Record waits then, before it drops and counts: 30 s; not at all while sealing fails
}

func (c LogConfig) withDefaults() LogConfig {
	if c.SegmentRows <= 0 {
		c.SegmentRows = 16384
	}
	if c.MaxAge <= 0 {
		c.MaxAge = time.Hour
	}
	if c.SyncEvery <= 0 {
		c.SyncEvery = 100 * time.Millisecond
	}
	if c.Backlog <= 0 {
		c.Backlog = 4
	}
	if c.Patience <= 0 {
		c.Patience = 30 * time.Second
	}
	return c
}

// Log is the prediction log: spool file, then sealed segments. It implements serving.PredictionSink and is safe for
// concurrent use.
type Log struct {
	cfg   LogConfig
	db    *store.Store
	blobs Blobs
	log   *slog.Logger
	root  *os.Root
	seen  func(project, model string, at int64) // told of new event times, under no lock

	dropped, repeated atomic.Int64

	mu      sync.Mutex // guards all below
	current *generation
	waiting []*generation // full, oldest first
	failing bool          // the last attempt to seal failed
	room    chan struct{} // closed when waiting shrinks, or when sealing fails
	stats   map[statKey]*ReleaseStats
	again   again
	closed  bool

	dirty, full chan struct{} // capacity 1: something to sync, something to seal
	stop        chan struct{}
	done        sync.WaitGroup
}

type statKey struct {
	Key
	release, variant string
	shadow           bool
}

// openLog reads back what an earlier process had not sealed and starts sealing it. seen may be nil.
func openLog(ctx context.Context, cfg LogConfig, db *store.Store, blobs Blobs, log *slog.Logger, seen func(project, model string, at int64)) (*Log, error) {
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The folder of the prediction log cannot be made.", "Check owner and mode of the data directory.")
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The folder of the prediction log cannot be opened.", "Check owner and mode of the data directory.")
	}
	l := &Log{cfg: cfg, db: db, blobs: blobs, log: log, root: root, seen: seen, room: make(chan struct{}), stats: map[statKey]*ReleaseStats{}, again: newAgain(),
		dirty: make(chan struct{}, 1), full: make(chan struct{}, 1), stop: make(chan struct{})}
	if err := l.recover(ctx); err != nil {
		root.Close()
		return nil, err
	}
	if err := l.remember(ctx); err != nil {
		root.Close()
		return nil, err
	}
	if l.current, err = newGeneration(root); err != nil {
		root.Close()
		return nil, err
	}
	l.done.Go(l.syncLoop)
	l.done.Go(l.sealLoop)
	poke(l.full)
	return l, nil
}

func (l *Log) recover(ctx context.Context) error {
	names, err := spools(l.root)
	if err != nil {
		return err
	}
	for _, name := range names {
		g, lost, damaged, err := readSpool(l.root, name, func(project string) (*seal.Box, error) { return l.blobs.Box(ctx, project) })
		if err != nil {
			return err
		}
		sealed, err := l.isSealed(ctx, g.id)
		if err != nil {
			return err
		}
		if damaged && !sealed {
			l.log.Error("the end of a spool of predictions is damaged; the file is kept aside", "file", name, "bytes", lost)
			if err := l.keep(ctx, g); err != nil { // its good rows must be in a segment before the file has another name
				return err
			}
			if err := setAside(l.root, name); err != nil {
				return spoolFault(err)
			}
			continue
		}
		if sealed || g.rows == 0 {
			l.remove(g)
			continue
		}
		if lost > 0 {
			l.log.Warn("a cut prediction frame was dropped", "file", name, "bytes", lost)
		}
		l.waiting = append(l.waiting, g)
		l.announce(g.groups)
	}
	return nil
}

func (l *Log) announce(groups map[Key]*group) {
	if l.seen != nil {
		for k, g := range groups {
			l.seen(k.Project, k.Model, g.to)
		}
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Record implements serving.PredictionSink. A row of a request that was sent again is not kept twice. When it returns nil the predictions outlive this process, and after SyncEvery
// a power loss too, or they were counted as dropped: a log that cannot be written must not stop answers.
func (l *Log) Record(ctx context.Context, predictions []serving.Prediction) error {
	for len(predictions) > 0 {
		n := 1
		for n < len(predictions) && predictions[n].Project == predictions[0].Project {
			n++
		}
		if err := l.record(ctx, predictions[:n:n]); err != nil {
			if l.dropped.Add(int64(n)) == int64(n) {
				l.log.Error("predictions are not logged; the count is in the metrics", "err", err)
			}
		}
		predictions = predictions[n:]
	}
	return nil
}

func (l *Log) record(ctx context.Context, rows []serving.Prediction) error {
	project := rows[0].Project
	box, err := l.blobs.Box(ctx, project)
	if err != nil {
		return err
	}
	if err := l.awaitRoom(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	all := len(rows)
	rows, undo := l.again.fresh(rows)
	l.mu.Unlock()
	l.repeated.Add(int64(all - len(rows)))
	if len(rows) == 0 {
		return nil
	}
	if err := l.keepFrame(box, project, rows); err != nil {
		l.mu.Lock()
		undo()
		l.mu.Unlock()
		return err
	}
	poke(l.dirty)
	if l.seen != nil {
		for i := range rows {
			l.seen(project, rows[i].Model, rows[i].At.UnixMicro())
		}
	}
	return nil
}

func (l *Log) keepFrame(box *seal.Box, project string, rows []serving.Prediction) error {
	for {
		l.mu.Lock()
		spool := l.current.id
		l.mu.Unlock()
		b, err := frame(box, spool, project, rows)
		if err != nil {
			return err
		}
		if ok, err := l.write(spool, b, rows); ok || err != nil {
			return err
		}
	}
}

// write appends the frame unless another file became current since it was made.
func (l *Log) write(spool string, b []byte, rows []serving.Prediction) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, fault.New(fault.Unavailable, "The server is stopping.", "")
	}
	if l.current.id != spool {
		return false, nil
	}
	if err := l.current.append(b); err != nil {
		return false, err
	}
	l.current.add(rows)
	for i := range rows {
		l.count(&rows[i])
	}
	if l.current.rows >= l.cfg.SegmentRows {
		return true, l.rotate()
	}
	return true, nil
}

func (l *Log) count(p *serving.Prediction) {
	k := statKey{Key{p.Project, p.Model, p.Environment}, p.Release, p.Variant, p.Shadow}
	st := l.stats[k]
	if st == nil {
		st = &ReleaseStats{Key: k.Key, Release: p.Release, Variant: p.Variant, Shadow: p.Shadow}
		l.stats[k] = st
	}
	st.Count++
	if hasNull(p.Features) {
		st.NullRows++
	}
	st.Latency.Add(p.Latency)
}

// rotate starts a new file; l.mu is held. When that fails, the current one goes on.
func (l *Log) rotate() error {
	if l.current.rows == 0 {
		return nil
	}
	next, err := newGeneration(l.root)
	if err != nil {
		l.log.Error("no new spool file", "err", err)
		return nil
	}
	l.waiting = append(l.waiting, l.current)
	l.current = next
	poke(l.full)
	return nil
}

// awaitRoom holds a caller back while sealing is behind.
func (l *Log) awaitRoom(ctx context.Context) error {
	var patience *time.Timer
	for {
		l.mu.Lock()
		behind, failing, room := len(l.waiting) > l.cfg.Backlog, l.failing, l.room
		l.mu.Unlock()
		if !behind {
			return nil
		}
		if failing {
			return fault.New(fault.Unavailable, "The prediction log cannot seal what it holds.", "")
		}
		if patience == nil {
			patience = time.NewTimer(l.cfg.Patience)
			defer patience.Stop()
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			return fault.New(fault.Unavailable, "The prediction log is behind with sealing.", "")
		}
	}
}

// Flush returns when everything recorded before is on the disk.
func (l *Log) Flush(context.Context) error { return l.sync() }

func (l *Log) sync() error {
	l.mu.Lock()
	g := l.current
	size, synced := g.size, g.synced
	l.mu.Unlock()
	if size == synced {
		return nil
	}
	if err := g.file.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) { // closed: sealed meanwhile
		return spoolFault(err)
	}
	l.mu.Lock()
	g.synced = max(g.synced, size)
	l.mu.Unlock()
	return nil
}

func (l *Log) syncLoop() {
	tick := time.NewTicker(l.cfg.SyncEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.dirty:
		}
		select { // gather what comes within the interval
		case <-l.stop:
			return
		case <-tick.C:
		}
		if err := l.sync(); err != nil {
			l.log.Error("predictions could not be synced", "err", err)
			poke(l.dirty)
		}
	}
}

// Seal puts everything recorded so far into segments and returns when that is done.
func (l *Log) Seal(ctx context.Context) error {
	l.mu.Lock()
	err := l.rotate()
	l.mu.Unlock()
	for err == nil {
		l.mu.Lock()
		left, room := len(l.waiting), l.room
		l.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.stop:
			return fault.New(fault.Unavailable, "The server is stopping.", "")
		}
	}
	return err
}

func (l *Log) sealLoop() {
	ctx, cancel := context.WithCancel(who.With(context.Background(), who.Actor{Kind: who.System, Name: "monitoring", Via: "system"}))
	defer cancel()
	go func() {
		select {
		case <-l.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	age := time.NewTicker(min(l.cfg.MaxAge, time.Minute))
	defer age.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.full:
		case <-age.C:
			l.mu.Lock()
			if time.Since(l.current.born) >= l.cfg.MaxAge {
				_ = l.rotate()
			}
			l.mu.Unlock()
		}
		l.drain(ctx)
	}
}

// drain seals what waits, oldest first; a failure is tried again after a while.
func (l *Log) drain(ctx context.Context) {
	wait := time.Second
	for {
		l.mu.Lock()
		var g *generation
		if len(l.waiting) > 0 {
			g = l.waiting[0]
		}
		l.mu.Unlock()
		if g == nil {
			return
		}
		if err := l.keep(ctx, g); err != nil {
			if ctx.Err() != nil {
				return
			}
			l.log.Error("predictions could not be sealed; trying again", "spool", g.id, "err", err)
			l.mu.Lock()
			l.failing = true
			l.announceRoom()
			l.mu.Unlock()
			select {
			case <-time.After(wait):
			case <-l.stop:
				return
			}
			wait = min(2*wait, 30*time.Second)
			continue
		}
		wait = time.Second
		l.mu.Lock()
		l.waiting, l.failing = l.waiting[1:], false
		l.announceRoom()
		l.mu.Unlock()
		l.remove(g)
	}
}

// announceRoom wakes who waits for the sealing; l.mu is held.
func (l *Log) announceRoom() {
	close(l.room)
	l.room = make(chan struct{})
}

// keep writes a generation's segments: blobs first, then all index rows in one change that also says the spool is done.
func (l *Log) keep(ctx context.Context, g *generation) error {
	ctx = who.AsSystem(ctx, "monitoring")
	var segments []segmentRow
	for k, gr := range g.groups {
		b, err := encodeSegment(gr.rows)
		if err != nil {
			return err
		}
		ref, err := l.blobs.Put(ctx, k.Project, bytes.NewReader(b))
		if err != nil {
			return err
		}
		row := segmentRow{ID: id.New("seg"), Key: k, From: gr.from, To: gr.to, Rows: len(gr.rows), Digest: ref.Digest, bloom: newBloom(2 * len(gr.rows)), spool: g.id}
		roll := rollup{}
		for i := range gr.rows {
			roll.add(&gr.rows[i])
			row.bloom.add(gr.rows[i].ID)
			row.bloom.add(gr.rows[i].RequestID)
		}
		row.rollup = roll.appendBinary(nil)
		segments = append(segments, row)
	}
	err := l.db.Change(ctx, "model.monitor", policy.Resource{Kind: "prediction_log", ID: g.id}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertSpool(ctx, tx, g.id); err != nil {
			return event.Draft{}, err
		}
		for i := range segments {
			if err := insertSegment(ctx, tx, &segments[i]); err != nil {
				return event.Draft{}, err
			}
			if err := raiseWatermark(ctx, tx, segments[i].Project, segments[i].Model, markEvent, segments[i].To); err != nil {
				return event.Draft{}, err
			}
		}
		tx.After(segments)
		return event.Draft{}, nil
	})
	if store.Unique(err) { // done before a crash
		return nil
	}
	return err
}

func (l *Log) remove(g *generation) {
	if g.file != nil {
		_ = g.file.Close()
	}
	if err := l.root.Remove(g.id + spoolSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn("a sealed spool file could not be removed; the next start tries again", "spool", g.id, "err", err)
	}
}

// Close syncs and stops. What is not sealed is read back at the next start.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	err := l.sync()
	close(l.stop)
	l.done.Wait()
	for _, g := range append(l.waiting, l.current) {
		if g.file != nil {
			err = errors.Join(err, g.file.Close())
		}
	}
	if l.current.rows == 0 {
		_ = l.root.Remove(l.current.id + spoolSuffix)
	}
	return errors.Join(err, l.root.Close())
}
