package app

import (
	"context"
	"time"

	"falaj/internal/kernel/who"
)

// How often what nobody asks for is done: schedules, and sweeping what an interrupted write left.
const (
	tickEvery  = time.Minute
	sweepEvery = time.Hour
	sweepGrace = time.Hour // a file younger than this may belong to a write under way
)

// background runs until ctx ends. Its errors are logged: nobody waits for it.
func (a *App) background(ctx context.Context) {
	ctx = who.AsSystem(ctx, "app")
	tick, sweep := time.NewTicker(tickEvery), time.NewTicker(sweepEvery)
	defer tick.Stop()
	defer sweep.Stop()
	a.greet(ctx)
	a.sweep(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.tick(ctx)
		case <-sweep.C:
			a.sweep(ctx)
		}
	}
}

func (a *App) tick(ctx context.Context) {
	projects, err := a.access.Projects(ctx)
	if err != nil {
		a.log.Error("projects could not be listed for their schedules", "err", err)
		return
	}
	for _, p := range projects {
		if err := a.stages.pipelines.Tick(ctx, p.Name); err != nil {
			a.log.Error("a schedule could not be looked at", "project", p.Name, "err", err)
		}
	}
}

func (a *App) sweep(ctx context.Context) {
	if n, err := a.stages.data.Sweep(ctx, sweepGrace); err != nil {
		a.log.Error("orphans of the warehouse could not be swept", "err", err)
	} else if n > 0 {
		a.log.Info("orphans swept from the warehouse", "files", n)
	}
	if n, err := a.blobs.Sweep(ctx, sweepGrace); err != nil {
		a.log.Error("orphans of the blob store could not be swept", "err", err)
	} else if n > 0 {
		a.log.Info("orphans swept from the blob store", "files", n)
	}
}
