package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

func checkAlias(alias string) error {
	if alias == "" {
		return invalid("Registered model alias name cannot be empty.")
	}
	for _, r := range alias {
		if r != '_' && r != '-' && !(r >= '0' && r <= '9') && !(r >= 'a' && r <= 'z') && !(r >= 'A' && r <= 'Z') && r < 0x80 {
			return invalid("Invalid alias name: '%s'. Names may only contain alphanumerics, underscores (_), and dashes (-).", alias)
		}
	}
	return checkLength("Registered model alias name", 255, alias)
}

func checkReserved(alias string) error {
	if strings.EqualFold(alias, "latest") {
		return invalid("'latest' alias name (case insensitive) is reserved.")
	}
	if tail := alias[1:]; (alias[0] == 'v' || alias[0] == 'V') && tail != "" && strings.Trim(tail, "0123456789") == "" {
		return invalid("Version alias name '%s' is reserved.", alias)
	}
	return nil
}

// isBound says whether delivery owns the alias. Case does not hide it.
func (s *Service) isBound(ctx context.Context, project, alias string) (bool, error) {
	names, err := s.bound(ctx, project)
	if err != nil {
		return false, err
	}
	for _, n := range append(names, BoundAliases()...) {
		if strings.EqualFold(n, alias) {
			return true, nil
		}
	}
	return false, nil
}

func refuseBound(err error, kind, name, model string, n int64) error {
	env := strings.ToLower(name)
	next := fmt.Sprintf("Use `falaj promote %s@%d %s`.", model, n, env)
	if n == 0 {
		next = fmt.Sprintf("Use `falaj promote %s@VERSION %s`, or `falaj rollback`.", model, env)
	}
	return fault.Wrap(err, fault.Denied, fmt.Sprintf("The %s '%s' of %s is bound to an environment and moves only by delivery. %s", kind, name, model, next), next)
}

// SetAlias points an alias to a version; change names the change record behind it, "" for none. An alias that belongs to an
// environment or variant is moved by delivery alone (action delivery.move); others get fault.Denied with the way to go.
func (s *Service) SetAlias(ctx context.Context, project, model, alias string, n int64, change string) error {
	if err := checkAlias(alias); err != nil {
		return err
	}
	if err := checkReserved(alias); err != nil {
		return err
	}
	return s.pointAlias(ctx, project, model, alias, n, change)
}

// DeleteAlias removes an alias; that it is not there is no error. Environments' aliases are delivery's, as in SetAlias.
func (s *Service) DeleteAlias(ctx context.Context, project, model, alias, change string) error {
	if err := checkAlias(alias); err != nil {
		return err
	}
	return s.pointAlias(ctx, project, model, alias, 0, change)
}

func (s *Service) pointAlias(ctx context.Context, project, model, alias string, n int64, change string) error {
	bound, err := s.isBound(ctx, project, alias)
	if err != nil {
		return err
	}
	action, announce := policy.Action("model.alias.set"), "model.alias.set"
	if n == 0 {
		action, announce = "model.alias.delete", "model.alias.deleted"
	}
	if bound {
		action = "delivery.move"
	}
	err = s.store.Change(ctx, action, modelResource(project, model), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		m, err := s.Model(ctx, project, model)
		if err != nil {
			return event.Draft{}, err
		}
		if n != 0 {
			if _, err := s.Version(ctx, project, model, n); err != nil {
				return event.Draft{}, err
			}
		}
		move := PointerMove{Kind: "alias", Name: alias, To: n, Actor: who.From(ctx).Origin(), Change: change}
		for _, a := range m.Aliases {
			if a.Name == alias {
				move.From = a.Version
			}
		}
		if move.From == n {
			return event.Draft{}, nil // nothing moves: no row in the history
		}
		tx.Before(move.From)
		tx.After(n)
		if err := s.moveAlias(ctx, tx, m.ID, move); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: announce, Subject: model + "@" + alias, Data: map[string]any{"model": model, "alias": alias, "from": move.From, "to": n, "change": change}}, nil
	})
	if fault.Is(err, fault.Denied) && bound {
		return refuseBound(err, "alias", alias, model, n)
	}
	return err
}

// VersionByAlias gives the version an alias points to; "latest" is the newest version.
func (s *Service) VersionByAlias(ctx context.Context, project, model, alias string) (Version, error) {
	if err := checkAlias(alias); err != nil {
		return Version{}, err
	}
	m, err := s.Model(ctx, project, model)
	if err != nil {
		return Version{}, err
	}
	if strings.EqualFold(alias, "latest") {
		var newest Version
		for _, v := range m.Latest {
			if v.Number > newest.Number {
				newest = v
			}
		}
		if newest.Number == 0 {
			return newest, notFound("Latest version not found for model %s.", model)
		}
		return newest, nil
	}
	for _, a := range m.Aliases {
		if a.Name == alias {
			return s.Version(ctx, project, model, a.Version)
		}
	}
	return Version{}, invalid("Registered model alias %s not found.", alias)
}

// PointerHistory gives every move of the aliases and stages of a model, newest first, of one pointer when name is not "".
func (s *Service) PointerHistory(ctx context.Context, project, model, name string) ([]PointerMove, error) {
	m, err := s.Model(ctx, project, model)
	if err != nil {
		return nil, err
	}
	var out []PointerMove
	err = s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		out, err = selectMoves(ctx, q, m.ID, name)
		return err
	})
	return out, err
}

// PointedAt gives the version an alias pointed to at a time, 0 for none: "what was in production on that day".
func (s *Service) PointedAt(ctx context.Context, project, model, alias string, at time.Time) (int64, error) {
	moves, err := s.PointerHistory(ctx, project, model, alias)
	if err != nil {
		return 0, err
	}
	for _, m := range moves {
		if m.Kind == "alias" && !m.At.After(at) {
			return m.To, nil
		}
	}
	return 0, nil
}
