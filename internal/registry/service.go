package registry

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"falaj/internal/blob"
	"falaj/internal/kernel/event"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/tracking"
)

// Service holds the verbs of the registry. It is safe for concurrent use.
type Service struct {
	store    *store.Store
	tracking *tracking.Service
	blobs    *blob.Store
	bound    func(ctx context.Context, project string) ([]string, error)
}

// New wires the service. bound names the aliases of a project that only delivery moves (its environments); nil takes
// BoundAliases. Whatever it returns, BoundAliases stay bound.
func New(s *store.Store, t *tracking.Service, b *blob.Store, bound func(ctx context.Context, project string) ([]string, error)) *Service {
	if bound == nil {
		bound = func(context.Context, string) ([]string, error) { return nil, nil }
	}
	return &Service{store: s, tracking: t, blobs: b, bound: bound}
}

// BoundAliases are the names that belong to delivery in every project: environments and variants.
func BoundAliases() []string {
	return []string{"dev", "staging", "production", "champion", "challenger", "shadow"}
}

func modelResource(project, name string) policy.Resource {
	return policy.Resource{Kind: "Model", ID: name, Project: project}
}

func versionResource(project, name string, n int64) policy.Resource {
	return policy.Resource{Kind: "ModelVersion", ID: fmt.Sprintf("%s@%d", name, n), Project: project}
}

func invalid(format string, args ...any) *fault.E { return fault.Newf(fault.Invalid, format, args...) }

func notFound(format string, args ...any) *fault.E {
	return fault.Newf(fault.NotFound, format, args...)
}

const (
	maxTagKey   = 250
	maxTagValue = 100_000
	maxName     = 256
)

func checkModelName(name string) error {
	if strings.TrimSpace(name) == "" {
		return invalid("Missing value for required parameter 'name'.")
	}
	if strings.ContainsAny(name, "/:") {
		return invalid("Invalid model name '%s'. Names cannot contain '/' or ':'.", name)
	}
	if strings.ContainsAny(name, "@\x00") {
		return invalid("Invalid model name '%s'. Names cannot contain '@': it stands between a model and its version.", name)
	}
	if n := path.Clean(name); n != name || n == "." || strings.HasPrefix(n, "..") {
		return invalid("Invalid value %s for parameter 'name' supplied: Names may be treated as files in certain cases, and must not resolve to other names when treated as such. This name would resolve to %s", tracking.Quote(name), tracking.PyRepr(n))
	}
	return checkLength("name", maxName, name)
}

func checkLength(what string, limit int, s string) error {
	if len(s) > limit && utf8.RuneCountInString(s) > limit {
		return invalid("'%s' exceeds the maximum length of %d characters", what, limit)
	}
	return nil
}

func checkTags(tags []tracking.Pair) error {
	for _, t := range tags {
		if err := tracking.CheckName("key", t.Key); err != nil {
			return err
		}
		if err := checkLength("key", maxTagKey, t.Key); err != nil {
			return err
		}
		if err := checkLength("value", maxTagValue, t.Value); err != nil {
			return err
		}
	}
	return nil
}

func isPrompt(tags []tracking.Pair) bool {
	is := false
	for _, t := range tags {
		if t.Key == TagPrompt {
			is = strings.EqualFold(t.Value, "true")
		}
	}
	return is
}

// CreateModel registers a name. fault.Exists when the project has one of it.
func (s *Service) CreateModel(ctx context.Context, project string, r NewModel) (Model, error) {
	if err := checkModelName(r.Name); err != nil {
		return Model{}, err
	}
	if err := checkTags(r.Tags); err != nil {
		return Model{}, err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	m := Model{Project: project, Name: r.Name, Description: r.Description, Author: who.From(ctx).Origin(), Created: now, Updated: now}
	err := s.store.Change(ctx, "model.create", modelResource(project, r.Name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		if err := insertModel(ctx, tx, &m, r.Tags); err != nil {
			return event.Draft{}, err
		}
		tx.After(m)
		return event.Draft{Type: "model.created", Subject: m.Name, Data: map[string]any{"model": m.Name}}, nil
	})
	if store.Unique(err) {
		return Model{}, s.nameTaken(ctx, project, r)
	}
	if err != nil {
		return Model{}, err
	}
	return s.Model(ctx, project, r.Name)
}

// nameTaken says in MLflow's words what has the name: models and prompts share one space of names.
func (s *Service) nameTaken(ctx context.Context, project string, r NewModel) error {
	kind := func(prompt bool) string {
		if prompt {
			return "Prompt"
		}
		return "Registered Model"
	}
	want := kind(isPrompt(r.Tags))
	old, err := s.Model(ctx, project, r.Name)
	if err == nil && kind(isPrompt(old.Tags)) != want {
		return fault.Newf(fault.Exists, "Tried to create a %s with name %s, but the name is already taken by a %s. MLflow does not allow creating a model and a prompt with the same name.",
			strings.ToLower(want), tracking.PyRepr(r.Name), strings.ToLower(kind(isPrompt(old.Tags))))
	}
	return fault.Newf(fault.Exists, "%s (name=%s) already exists.", want, r.Name)
}

// Model gives a registered model with tags, aliases and the newest version of each stage.
func (s *Service) Model(ctx context.Context, project, name string) (Model, error) {
	if err := checkModelName(name); err != nil {
		return Model{}, err
	}
	var m Model
	err := s.store.View(ctx, func(ctx context.Context, q store.Querier) error {
		list, err := selectModels(ctx, q, `WHERE m.project = $1 AND m.name = $2 AND m.deleted_at IS NULL`, project, name)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return notFound("Registered Model with name=%s not found", name)
		}
		m = list[0]
		return nil
	})
	return m, err
}

func (s *Service) changeModel(ctx context.Context, action policy.Action, announce, project, name string, fn func(context.Context, *store.Tx, *Model) error) (Model, error) {
	var m Model
	err := s.store.Change(ctx, action, modelResource(project, name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		var err error
		if m, err = s.Model(ctx, project, name); err != nil {
			return event.Draft{}, err
		}
		tx.Before(m)
		if err := fn(ctx, tx, &m); err != nil {
			return event.Draft{}, err
		}
		m.Updated = time.Now().UTC().Truncate(time.Microsecond)
		if err := updateModel(ctx, tx, m); err != nil {
			return event.Draft{}, err
		}
		tx.After(m)
		return event.Draft{Type: announce, Subject: m.Name, Data: map[string]any{"model": m.Name}}, nil
	})
	if err != nil {
		return Model{}, err
	}
	return m, nil
}

// DescribeModel replaces the description.
func (s *Service) DescribeModel(ctx context.Context, project, name, description string) (Model, error) {
	return s.changeModel(ctx, "model.update", "", project, name, func(_ context.Context, _ *store.Tx, m *Model) error {
		m.Description = description
		return nil
	})
}

// RenameModel gives a model another name. Releases keep the name they were made under.
func (s *Service) RenameModel(ctx context.Context, project, name, to string) (Model, error) {
	if strings.TrimSpace(to) == "" {
		return Model{}, invalid("Missing value for required parameter 'new_name'.")
	}
	if err := checkModelName(to); err != nil {
		return Model{}, err
	}
	_, err := s.changeModel(ctx, "model.update", "model.renamed", project, name, func(ctx context.Context, tx *store.Tx, m *Model) error {
		if bound, err := s.pointed(ctx, project, *m, 0); err != nil || bound != "" {
			return refusePointed(err, m.Name, bound, "renamed")
		}
		m.Name = to
		return nil
	})
	if store.Unique(err) {
		return Model{}, fault.Newf(fault.Exists, "Registered Model (name=%s) already exists.", to)
	}
	if err != nil {
		return Model{}, err
	}
	return s.Model(ctx, project, to)
}

// DeleteModel removes a model from view. It is refused while an alias of an environment points to one of its versions.
// Releases and the history of pointers stay.
func (s *Service) DeleteModel(ctx context.Context, project, name string) error {
	return s.store.Change(ctx, "model.delete", modelResource(project, name), func(ctx context.Context, tx *store.Tx) (event.Draft, error) {
		m, err := s.Model(ctx, project, name)
		if err != nil {
			return event.Draft{}, err
		}
		if bound, err := s.pointed(ctx, project, m, 0); err != nil || bound != "" {
			return event.Draft{}, refusePointed(err, m.Name, bound, "deleted")
		}
		tx.Before(m)
		for _, a := range m.Aliases {
			if err := insertMove(ctx, tx, m.ID, PointerMove{Kind: "alias", Name: a.Name, From: a.Version, Actor: who.From(ctx).Origin()}); err != nil {
				return event.Draft{}, err
			}
		}
		if err := deleteModel(ctx, tx, m.ID); err != nil {
			return event.Draft{}, err
		}
		return event.Draft{Type: "model.deleted", Subject: m.Name, Data: map[string]any{"model": m.Name}}, nil
	})
}

// pointed gives a bound alias that points to the model (version 0: any version), "" for none.
func (s *Service) pointed(ctx context.Context, project string, m Model, version int64) (string, error) {
	for _, a := range m.Aliases {
		if version != 0 && a.Version != version {
			continue
		}
		bound, err := s.isBound(ctx, project, a.Name)
		if err != nil {
			return "", err
		}
		if bound {
			return a.Name, nil
		}
	}
	return "", nil
}

func refusePointed(err error, what, alias, verb string) error {
	if err != nil {
		return err
	}
	return fault.New(fault.Conflict, fmt.Sprintf("%s cannot be %s: '%s' points to it.", what, verb, alias), "Move the pointer first with `falaj promote` or `falaj rollback`.")
}

// SetModelTag sets a tag.
func (s *Service) SetModelTag(ctx context.Context, project, name string, t tracking.Pair) error {
	if err := checkTags([]tracking.Pair{t}); err != nil {
		return err
	}
	_, err := s.changeModel(ctx, "model.update", "", project, name, func(ctx context.Context, tx *store.Tx, m *Model) error {
		return upsertModelTag(ctx, tx, m.ID, t)
	})
	return err
}

// DeleteModelTag removes a tag; that it is not there is no error.
func (s *Service) DeleteModelTag(ctx context.Context, project, name, key string) error {
	_, err := s.changeModel(ctx, "model.update", "", project, name, func(ctx context.Context, tx *store.Tx, m *Model) error {
		_, err := tx.Exec(ctx, `DELETE FROM model_tags WHERE model = $1 AND key = $2`, m.ID, key)
		return err
	})
	return err
}
