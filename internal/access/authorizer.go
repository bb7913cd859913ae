package access

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Authorizer decides by the policy engine with the roles of the database.
type Authorizer struct {
	engine *policy.Engine
	region string // of this installation
	open   bool

	mu    sync.Mutex // guards cache
	cache map[string]projectRoles
}

type projectRoles struct {
	roles   policy.Bindings
	regions []string
	missing bool // there is no such project
	until   time.Time
}

// NewAuthorizer makes the authorizer of an installation in a region. open lets anonymous callers on loopback work without a token.
func NewAuthorizer(e *policy.Engine, region string, open bool) *Authorizer {
	return &Authorizer{engine: e, region: region, open: open, cache: map[string]projectRoles{}}
}

// Authorize decides for the actor in ctx.
func (a *Authorizer) Authorize(ctx context.Context, q store.Querier, action policy.Action, res policy.Resource) (policy.Decision, error) {
	return a.Explain(ctx, q, who.From(ctx), action, res)
}

// Explain decides for any actor: what `falaj policy why` shows.
func (a *Authorizer) Explain(ctx context.Context, q store.Querier, actor who.Actor, action policy.Action, res policy.Resource) (policy.Decision, error) {
	pr, err := a.lookup(ctx, q, res.Project)
	if err != nil {
		return policy.Decision{}, err
	}
	d := a.engine.Decide(policy.Input{Actor: actor, Action: action, Resource: res, Roles: pr.roles, Regions: pr.regions, Open: a.open})
	if d.Allow && pr.missing { // said only to those who may know
		return policy.Decision{}, fault.New(fault.NotFound, "There is no project '"+res.Project+"'.", "`falaj apply` in its folder makes it, or an admin: POST /api/falaj/v1/projects.")
	}
	return d, nil
}

// Known says whether the vocabulary has the action.
func (a *Authorizer) Known(action policy.Action) bool { return a.engine.Known(action) }

func (a *Authorizer) lookup(ctx context.Context, q store.Querier, project string) (projectRoles, error) {
	a.mu.Lock()
	pr, ok := a.cache[project]
	a.mu.Unlock()
	if ok && time.Now().Before(pr.until) {
		return pr, nil
	}
	pr = projectRoles{roles: policy.Bindings{}, regions: []string{a.region}, until: time.Now().Add(cacheTTL)}
	rows, err := q.Query(ctx, `SELECT role, principal FROM bindings WHERE project = $1 OR project = '*'`, project)
	if err != nil {
		return pr, err
	}
	defer rows.Close()
	for rows.Next() {
		var role, principal string
		if err := rows.Scan(&role, &principal); err != nil {
			return pr, err
		}
		pr.roles[policy.Role(role)] = append(pr.roles[policy.Role(role)], principal)
	}
	if err := rows.Err(); err != nil {
		return pr, err
	}
	if project != "" {
		var regions string
		err := q.QueryRow(ctx, `SELECT regions FROM projects WHERE name = $1`, project).Scan(&regions)
		if err != nil && !store.NotFound(err) {
			return pr, err
		}
		pr.missing = err != nil
		var list []string
		if err == nil {
			if err := json.Unmarshal([]byte(regions), &list); err != nil {
				return pr, fault.Wrap(err, fault.Internal, "The regions of project '"+project+"' could not be read.", "")
			}
		}
		if len(list) > 0 {
			pr.regions = list
		}
	}
	a.mu.Lock()
	a.cache[project] = pr
	a.mu.Unlock()
	return pr, nil
}

// forget drops what is cached, after roles or regions changed.
func (a *Authorizer) forget() {
	a.mu.Lock()
	clear(a.cache)
	a.mu.Unlock()
}
