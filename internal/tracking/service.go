package tracking

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"sync"

	"falaj/internal/blob"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
	"falaj/internal/tracking/filter"
)

// Service holds the verbs of tracking. It is safe for concurrent use.
//
// Experiments, runs, logged models and artifacts change by store.Change. Points (metrics, parameters, tags, inputs) come at
// a high rate and go by store.Write: the caller has authorized them (the route table does), and a token that is bound to one
// run is held to it here. A project never sees what belongs to another.
type Service struct {
	store  *store.Store
	blobs  *blob.Store
	sqlite bool

	mu   sync.RWMutex
	keys map[string]int64 // guarded by mu; metric names that are committed
}

// New wires the service.
func New(s *store.Store, b *blob.Store) *Service {
	return &Service{store: s, blobs: b, sqlite: s.Name() == "sqlite", keys: map[string]int64{}}
}

// args are the values of one of the large statements of the hot paths; others use filter.Args as it is.
func (s *Service) args() filter.Args { return filter.Args{Anonymous: s.sqlite} }

func experimentResource(project string, id int64) policy.Resource {
	return policy.Resource{Kind: "Experiment", ID: strconv.FormatInt(id, 10), Project: project}
}

func runResource(r RunInfo) policy.Resource {
	return policy.Resource{Kind: "Run", ID: r.ID, Project: r.Project, Attrs: map[string]string{"run": r.ID, "parent": r.Parent}}
}

// hold keeps a token that is bound to one run to that run and its children; a refusal is recorded. Other actors were authorized
// by the caller. It must not be called inside a transaction.
func (s *Service) hold(ctx context.Context, project, runID string) error {
	if who.From(ctx).Scope.Run == "" {
		return nil
	}
	r, err := s.RunInfo(ctx, project, runID)
	if err != nil {
		return err
	}
	return s.permit(ctx, "run.log", runResource(r))
}

// permit asks policy and records a refusal.
func (s *Service) permit(ctx context.Context, action policy.Action, res policy.Resource) error {
	dec, err := s.store.Authorize(ctx, action, res)
	if err != nil || dec.Allow {
		return err
	}
	if err := s.store.Deny(ctx, action, res, dec); err != nil {
		return err
	}
	return store.Denied(ctx, action, res, dec)
}

type pageToken struct {
	Offset int `json:"offset"`
}

func nextToken(offset int) string {
	b, _ := json.Marshal(pageToken{offset}) // a struct of one int always encodes
	return base64.StdEncoding.EncodeToString(b)
}

// parse reads a search in its dialect and gives Max its default.
func (r *Search) parse(d filter.Dialect) (clauses []filter.Clause, order []filter.Order, offset int, err error) {
	if clauses, err = d.Parse(r.Filter); err != nil {
		return nil, nil, 0, err
	}
	if order, err = d.OrderBy(r.OrderBy); err != nil {
		return nil, nil, 0, err
	}
	if offset, err = Offset(r.Token); err != nil {
		return nil, nil, 0, err
	}
	if r.Max == 0 {
		r.Max = 1000
	}
	return clauses, order, offset, checkMax(r.Max, 50000)
}

// Offset reads a page token of this package, 0 for the empty one. The registry's searches use the same form.
func Offset(token string) (int, error) {
	if token == "" {
		return 0, nil
	}
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return 0, invalid("Invalid page token, could not base64-decode")
	}
	var t pageToken
	if err := json.Unmarshal(raw, &t); err != nil {
		return 0, invalid("Invalid page token, decoded value=b%s", PyRepr(string(raw)))
	}
	if t.Offset <= 0 {
		return 0, invalid("Invalid page token, parsed value={'offset': %d}", t.Offset)
	}
	return t.Offset, nil
}

// Token makes a page token for the given offset.
func Token(offset int) string { return nextToken(offset) }

// cutPage turns max+1 fetched items into a page.
func cutPage[T any](items []T, offset, max int) Page[T] {
	if len(items) > max {
		return Page[T]{Items: items[:max], Next: nextToken(offset + max)}
	}
	return Page[T]{Items: items}
}
