package serving

import (
	"context"
	"sync"
	"sync/atomic"
)

// shadows scores copies of requests after their answer, a bounded number at a time. What does not fit is dropped and counted, never waited for.
type shadows struct {
	service *Service
	jobs    chan shadowJob
	workers sync.WaitGroup
	mu      sync.RWMutex // guards closed, and jobs from being closed under a sender
	closed  bool
	dropped atomic.Int64
	failed  atomic.Int64
	scored  atomic.Int64
}

// shadowJob holds its endpoint, so the engines stay loaded until it is done.
type shadowJob struct {
	ctx  context.Context
	call *call
	to   *variant
}

func startShadows(s *Service, queue, workers int) *shadows {
	sh := &shadows{service: s, jobs: make(chan shadowJob, queue)}
	for range workers {
		sh.workers.Go(func() {
			for j := range sh.jobs {
				sh.score(j)
				j.call.endpoint.release()
			}
		})
	}
	return sh
}

func (sh *shadows) close() {
	sh.mu.Lock()
	if !sh.closed {
		sh.closed = true
		close(sh.jobs)
	}
	sh.mu.Unlock()
	sh.workers.Wait()
}

// offer queues a job or drops it. The caller holds the endpoint.
func (sh *shadows) offer(j shadowJob) {
	if !j.call.endpoint.hold() {
		return
	}
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if !sh.closed {
		select {
		case sh.jobs <- j:
			return
		default:
		}
	}
	sh.dropped.Add(1)
	j.call.endpoint.release()
}

func (sh *shadows) score(j shadowJob) {
	rows := make([]int, j.call.rows)
	for i := range rows {
		rows[i] = i
	}
	predictions, err := j.call.score(j.ctx, j.to, rows)
	if err == nil {
		err = sh.service.cfg.Sink.Record(j.ctx, predictions)
	}
	if err != nil {
		sh.failed.Add(1)
		sh.service.log.Warn("shadow did not score", "endpoint", j.call.endpoint.Key.String(), "variant", j.to.Name, "release", j.to.Release, "err", err)
		return
	}
	sh.scored.Add(int64(j.call.rows))
}

// Stats counts what happened since the start of the process.
type Stats struct {
	ShadowScored  int64 // rows
	ShadowDropped int64 // requests that found the queue full
	ShadowFailed  int64 // requests
}

// Stats reads the counters.
func (s *Service) Stats() Stats {
	return Stats{s.shadows.scored.Load(), s.shadows.dropped.Load(), s.shadows.failed.Load()}
}
