package delivery

import (
	"context"
	"fmt"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/note"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// transition sets the state of a change with its note. From "" means any state that is not final. Doing it again is no error.
func (s *Service) transition(ctx context.Context, project, changeID string, action policy.Action, from, to State, word string, why note.Note) error {
	d, err := s.Change(ctx, project, changeID)
	if err != nil {
		return err
	}
	if d.State == to || d.State.Final() {
		return nil
	}
	return s.store.Change(ctx, action, resource(d.Change), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		c, err := selectChange(ctx, tx, project, changeID)
		if err != nil {
			return event.Draft{}, err
		}
		if c.State.Final() || (from != "" && c.State != from) {
			return event.Draft{}, fault.New(fault.Conflict, fmt.Sprintf("Change %s is %s.", c.ID, c.State), "")
		}
		tx.Before(c)
		c.State = to
		if to.Final() {
			c.Note = &why
		}
		tx.After(c)
		if err := updateState(ctx, tx, c); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: word, Subject: c.ID, Data: c}, insertStep(ctx, tx, c.ID, "system:delivery", word[len("change."):], why)
	})
}

// Moved is the data of delivery.moved: what the environment holds from now on.
type Moved struct {
	Model       string    `json:"model"`
	Environment string    `json:"environment"`
	Change      string    `json:"change"`
	Weight      int64     `json:"weight"`
	Pointers    []Pointer `json:"pointers"`
}

// move gives the change's release its weight in the environment; at 100 it is the champion and the canary is gone.
func (s *Service) move(ctx context.Context, c Change, weight int) error {
	at := s.eval.EventTime(ctx, c.Project)
	return s.store.Change(ctx, "delivery.move", resource(c), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		role, kind := Champion, "promote"
		if weight < 100 {
			role, kind = Canary, "canary"
		}
		done, err := selectPointer(ctx, tx, c.Project, c.Model, c.Environment, role)
		if err != nil {
			return event.Draft{}, err
		}
		p := Pointer{Project: c.Project, Model: c.Model, Environment: c.Environment, Role: role, Version: c.ToVersion, Release: c.ToRelease,
			Weight: int64(weight), Since: time.Now(), EventAt: at, Actor: c.Requester, Change: c.ID}
		if done.Change != c.ID || done.Weight != p.Weight { // else this step ran before and its result was lost: only announce again
			if err := upsertPointer(ctx, tx, p); err != nil {
				return event.Draft{}, err
			}
			if weight < 100 {
				if err := setWeight(ctx, tx, c, Champion, int64(100-weight)); err != nil {
					return event.Draft{}, err
				}
			} else {
				for _, role := range []string{Canary, Challenger} {
					if err := deletePointer(ctx, tx, c, role, c.ToRelease); err != nil {
						return event.Draft{}, err
					}
				}
			}
			why := note.New("change.manual", "asked for by {by}", "by", c.Requester)
			if c.Note != nil {
				why = *c.Note
			} else if c.FromVersion == 0 {
				why = note.New("change.first_release", "the first release in {environment}", "environment", c.Environment)
			}
			if weight == 100 || c.Rollout[0] == weight {
				if err := insertMove(ctx, tx, c.Project, c.Model, moveOf(c, kind, at, why)); err != nil {
					return event.Draft{}, err
				}
			}
			if err := insertStep(ctx, tx, c.ID, "system:delivery", "pointer.moved", note.New("event.pointer_moved", "{environment}: {weight} % of the traffic", "environment", c.Environment, "weight", weight)); err != nil {
				return event.Draft{}, err
			}
		}
		now, err := selectChange(ctx, tx, c.Project, c.ID)
		if err != nil {
			return event.Draft{}, err
		}
		now.State = Implementing
		if weight < 100 {
			now.State = RollingOut
		}
		if err := updateState(ctx, tx, now); err != nil {
			return event.Draft{}, err
		}
		return s.moved(ctx, tx, c, int64(weight))
	})
}

func (s *Service) moved(ctx context.Context, tx *store.Tx, c Change, weight int64) (event.Draft, error) {
	all, err := selectEnvironment(ctx, tx, c.Project, c.Model, c.Environment)
	if err != nil {
		return event.Draft{}, err
	}
	tx.After(all)
	return event.Draft{Type: "delivery.moved", Subject: c.Model + "/" + c.Environment, Data: Moved{c.Model, c.Environment, c.ID, weight, all}}, nil
}

func moveOf(c Change, kind string, at time.Time, why note.Note) Move {
	return Move{At: time.Now(), EventAt: at, Actor: c.Requester, Environment: c.Environment, Kind: kind,
		FromVersion: c.FromVersion, FromRelease: c.FromRelease, ToVersion: c.ToVersion, ToRelease: c.ToRelease, Change: c.ID, Reason: why}
}

// restore puts back what served before the change.
func (s *Service) restore(ctx context.Context, c Change) error {
	at := s.eval.EventTime(ctx, c.Project)
	return s.store.Change(ctx, "delivery.move", resource(c), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := deletePointer(ctx, tx, c, Canary, c.ToRelease); err != nil {
			return event.Draft{}, err
		}
		if c.FromVersion == 0 {
			if err := deletePointer(ctx, tx, c, Champion, c.ToRelease); err != nil {
				return event.Draft{}, err
			}
		} else if err := upsertPointer(ctx, tx, Pointer{Project: c.Project, Model: c.Model, Environment: c.Environment, Role: Champion, Version: c.FromVersion, Release: c.FromRelease,
			Weight: 100, Since: time.Now(), EventAt: at, Actor: "system:delivery", Change: c.ID}); err != nil {
			return event.Draft{}, err
		}
		return s.moved(ctx, tx, c, 100)
	})
}

// history writes a timeline entry for a change that moved nothing.
func (s *Service) history(ctx context.Context, c Change, kind string, why ...note.Note) error {
	n := note.New("change."+kind, kind)
	if len(why) > 0 {
		n = why[0]
	}
	at := s.eval.EventTime(ctx, c.Project)
	return s.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if had, err := hasMove(ctx, tx, c.ID, kind); err != nil || had {
			return err
		}
		return insertMove(ctx, tx, c.Project, c.Model, moveOf(c, kind, at, n))
	})
}

// Rollback puts an earlier release back into an environment at once: a standard change, pre-approved because that
// release passed its gates before. toVersion 0 means the one before the present. The same key gives the same change.
func (s *Service) Rollback(ctx context.Context, project, model, environment string, toVersion int64, reason, key string) (Change, error) {
	at := s.eval.EventTime(ctx, project)
	c := Change{ID: id.New("chg"), Project: project, Kind: "standard", Verb: "rollback", State: Implementing, Requester: who.From(ctx).Origin(), Model: model, Environment: environment, Reason: reason}
	err := s.store.Change(ctx, "delivery.rollback", resource(c), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := asked(ctx, tx, &c, key); err != nil {
			return event.Draft{}, err
		}
		now, err := selectPointer(ctx, tx, project, model, environment, Champion)
		if err != nil {
			return event.Draft{}, err
		}
		if now.Version == 0 {
			return event.Draft{}, fault.New(fault.NotFound, fmt.Sprintf("Nothing of %s serves in %s.", model, environment), "falaj status "+project+"/"+model)
		}
		if toVersion == now.Version {
			return event.Draft{}, fault.New(fault.Conflict, fmt.Sprintf("%s@%d serves in %s already.", model, toVersion, environment), "Without a version, the release before it comes back.")
		}
		target, err := selectEarlier(ctx, tx, project, model, environment, now, toVersion)
		if err != nil {
			return event.Draft{}, err
		}
		c.FromVersion, c.FromRelease, c.ToVersion, c.ToRelease = now.Version, now.Release, target.ToVersion, target.ToRelease
		if err := s.insert(ctx, tx, &c, key); err != nil {
			return event.Draft{}, err
		}
		why := note.New("change.rolled_back", "rolled back from {from} to {to}", "from", c.FromVersion, "to", c.ToVersion)
		if err := upsertPointer(ctx, tx, Pointer{Project: project, Model: model, Environment: environment, Role: Champion, Version: c.ToVersion, Release: c.ToRelease,
			Weight: 100, Since: time.Now(), EventAt: at, Actor: c.Requester, Change: c.ID}); err != nil {
			return event.Draft{}, err
		}
		if err := deletePointer(ctx, tx, c, Canary, ""); err != nil {
			return event.Draft{}, err
		}
		if err := insertMove(ctx, tx, c.Project, c.Model, moveOf(c, "rollback", at, why)); err != nil {
			return event.Draft{}, err
		}
		if err := insertStep(ctx, tx, c.ID, c.Requester, "pointer.moved", why); err != nil {
			return event.Draft{}, err
		}
		c.State = Closed
		c.Note = &why
		if err := updateState(ctx, tx, c); err != nil {
			return event.Draft{}, err
		}
		return s.moved(ctx, tx, c, 100)
	})
	return c, err
}

// SetChallenger lets a version run in the shadow of an environment's champion; version 0 takes the challenger away.
func (s *Service) SetChallenger(ctx context.Context, project, model, environment string, version int64, why note.Note) error {
	c := Change{Project: project, Model: model, Environment: environment, ToVersion: version, Requester: who.From(ctx).Origin()}
	if version != 0 {
		cand, err := s.catalog.Candidate(ctx, project, model, version)
		if err != nil {
			return err
		}
		c.ToRelease = cand.Release
	}
	at := s.eval.EventTime(ctx, project)
	return s.store.Change(ctx, "delivery.move", policy.Resource{Kind: "Model", ID: model, Project: project}, func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		now, err := selectPointer(ctx, tx, project, model, environment, Challenger)
		if err != nil {
			return event.Draft{}, err
		}
		if now.Release == c.ToRelease {
			return event.Draft{}, store.ErrUnchanged
		}
		c.FromVersion, c.FromRelease = now.Version, now.Release
		if version == 0 {
			err = deletePointer(ctx, tx, c, Challenger, "")
		} else {
			err = upsertPointer(ctx, tx, Pointer{Project: project, Model: model, Environment: environment, Role: Challenger, Version: version, Release: c.ToRelease, Since: time.Now(), EventAt: at, Actor: c.Requester})
		}
		if err != nil {
			return event.Draft{}, err
		}
		if err := insertMove(ctx, tx, c.Project, c.Model, moveOf(c, "challenger", at, why)); err != nil {
			return event.Draft{}, err
		}
		return s.moved(ctx, tx, c, 0)
	})
}
