package python

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"falaj/internal/kernel/fault"
)

// queueLength requests may wait for a worker; more are refused.
const queueLength = 1024

// Pauses before a worker that failed is started again: the first, doubled each time, up to the longest.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 10 * time.Second
)

// worker is the engine of one release: a queue, and one goroutine (run) that owns the process.
type worker struct {
	cfg         Loader
	interpreter string
	dir         string
	release     string
	conf        config
	features    []string

	queue   chan *request
	closing chan struct{} // closed by Close
	done    chan struct{} // closed by run
	once    sync.Once
}

// request is one Predict in the queue. answer has room for one, so run never waits for a caller that left.
type request struct {
	ctx    context.Context
	x      []float64
	rows   int
	answer chan answer
}

type answer struct {
	out []float64
	err error
}

// Features are the names in the model's signature or file.
func (w *worker) Features() []string { return w.features }

// Predict queues the rows and waits for their answer or the end of ctx.
func (w *worker) Predict(ctx context.Context, x []float64, rows int) ([]float64, error) {
	if len(x) > maxFrame/8-1 {
		return nil, fault.New(fault.TooLarge, fmt.Sprintf("The request has %d values, the Python worker takes %d at once.", len(x), maxFrame/8-1), "Send fewer rows.")
	}
	r := &request{ctx, x, rows, make(chan answer, 1)}
	select {
	case w.queue <- r:
	case <-w.done:
		return nil, fault.New(fault.Unavailable, "The release is being unloaded.", "")
	default:
		return nil, fault.New(fault.Limited, fmt.Sprintf("%d requests wait for this model already.", queueLength), "")
	}
	select {
	case a := <-r.answer:
		return a.out, a.err
	case <-ctx.Done():
		return nil, fault.Wrap(ctx.Err(), fault.Unavailable, "The caller went before the model answered.", "")
	case <-w.done:
		select {
		case a := <-r.answer:
			return a.out, a.err
		default:
			return nil, fault.New(fault.Unavailable, "The release is being unloaded.", "")
		}
	}
}

// Close ends the worker and removes its folder. Requests that wait are refused.
func (w *worker) Close() error {
	w.once.Do(func() { close(w.closing) })
	<-w.done
	return os.RemoveAll(w.dir)
}

// run takes what waits, puts it together and has it answered. When a batch fails, its requests are tried one by one, so that a bad one costs only itself.
func (w *worker) run(p *process) {
	defer close(w.done)
	defer func() {
		if p != nil {
			p.end()
		}
	}()
	failures := 0
	var alone []*request // from a failed batch
	var carry *request   // taken from the queue but too big for the batch
	for {
		var batch []*request
		if len(alone) > 0 {
			batch, alone = alone[:1], alone[1:]
		} else if batch, carry = w.collect(carry); batch == nil {
			return
		}
		if p != nil && !p.alive() {
			w.cfg.Log.Warn("python worker is gone", "release", w.release, "why", p.why(), "output", p.stderr.String())
			p.end()
			p = nil
			failures++
		}
		if p == nil {
			if !w.pause(failures) {
				return
			}
			var err error
			if p, err = w.start(context.Background()); err != nil {
				w.cfg.Log.Error("python worker does not start", "release", w.release, "failures", failures+1, "err", err)
				p = nil
				failures++
				for _, r := range append(batch, alone...) {
					r.answer <- answer{err: err}
				}
				alone = nil
				w.refuseWaiting(err)
				continue
			}
		}
		err := w.serve(p, batch)
		if errors.Is(err, errDied) {
			failures++
			p.end()
			w.cfg.Log.Warn("python worker died", "release", w.release, "requests", len(batch), "why", p.why(), "err", err, "output", p.stderr.String())
			err = fault.Wrap(err, fault.Unavailable, "The model's process died while it answered this request: "+p.why()+".", "It is started again by itself; other requests are not affected. The server's log has its output.")
			p = nil
		} else {
			failures = 0
		}
		switch {
		case err == nil:
		case len(batch) > 1:
			alone = append(alone, batch...)
		default:
			batch[0].answer <- answer{err: err}
		}
	}
}

// collect waits for one request and takes with it what waits already and has the same width, without waiting for more. nil: the worker closes.
func (w *worker) collect(first *request) (batch []*request, carry *request) {
	rows := 0
	for first == nil || first.ctx.Err() != nil {
		select {
		case first = <-w.queue:
		case <-w.closing:
			return nil, nil
		}
	}
	batch, rows = []*request{first}, first.rows
	width := len(first.x) / first.rows
	for rows < w.cfg.MaxBatch {
		select {
		case r := <-w.queue:
			if r.ctx.Err() != nil {
				continue
			}
			if rows+r.rows > w.cfg.MaxBatch || len(r.x)/r.rows != width {
				return batch, r
			}
			batch, rows = append(batch, r), rows+r.rows
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// serve has one batch answered. When it returns an error, no request was answered.
func (w *worker) serve(p *process, batch []*request) error {
	x, rows := batch[0].x, batch[0].rows
	if len(batch) > 1 {
		x = append([]float64(nil), x...)
		for _, r := range batch[1:] {
			x, rows = append(x, r.x...), rows+r.rows
		}
	}
	out, err := p.predict(x, rows, w.cfg.Answer)
	var m modelError
	if errors.As(err, &m) {
		return fault.New(fault.Invalid, "The model refused the input: "+string(m), "Correct the request's values.")
	}
	if err != nil {
		return err
	}
	k := len(out) / rows
	for _, r := range batch {
		n := r.rows * k
		r.answer <- answer{out: out[:n:n]}
		out = out[n:]
	}
	return nil
}

// refuseWaiting answers what waits now, so that nobody queues behind one failing start after the other.
func (w *worker) refuseWaiting(err error) {
	for {
		select {
		case r := <-w.queue:
			r.answer <- answer{err: err}
		default:
			return
		}
	}
}

// pause waits before the next start after some failures; false when the worker closes.
func (w *worker) pause(failures int) bool {
	if failures == 0 {
		return true
	}
	d := longestPause
	if failures < 8 {
		d = min(d, firstPause<<(failures-1))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.closing:
		return false
	}
}
