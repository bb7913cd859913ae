package api

import (
	"context"
	"slices"

	"falaj/internal/kernel/ledger"
	"falaj/internal/kernel/policy"
)

// Residency is where a project's bytes lie, by which keys they are sealed, and where they went or were not let go.
type Residency struct {
	Project   string     `json:"project"`
	Allowed   []string   `json:"allowed" doc:"regions of the project"`
	Stores    []Store    `json:"stores"`
	Targets   []Target   `json:"targets" doc:"places outside that are set up to get bytes"`
	Transfers []Transfer `json:"transfers" doc:"newest first, at most 1000 of each kind"`
	Denials   []Transfer `json:"denials" doc:"refused because of the region, newest first, among the newest 1000 of each kind"`
	OK        bool       `json:"ok" doc:"every store, key and target lies where the project allows"`
}

// Store is a place where bytes lie.
type Store struct {
	Name      string `json:"name"`
	Holds     string `json:"holds"`
	Region    string `json:"region"`
	KeyRegion string `json:"key_region" doc:"of the key that seals it; empty: not sealed"`
	OK        bool   `json:"ok"`
}

// Target is a place outside.
type Target struct {
	Kind   string `json:"kind"`
	ID     string `json:"id"`
	Host   string `json:"host"`
	Region string `json:"region"`
	OK     bool   `json:"ok"`
}

// Transfer is one recorded decision to let bytes leave or not.
type Transfer struct {
	Seq      int64  `json:"seq"`
	At       int64  `json:"at"`
	Actor    string `json:"actor"`
	Action   string `json:"action"`
	Resource string `json:"resource"`
}

func (a *API) residencyRoutes() {
	add(a, "GET", "/projects/{p}/evidence/residency", "residency", "Where the project's bytes lie and where they went", "audit.read", a.residency)
}

func (a *API) residency(ctx context.Context, in *InProject) (*Out[Residency], error) {
	p, err := a.Access.Project(ctx, in.Project)
	if err != nil {
		return nil, err
	}
	out := Residency{Project: in.Project, Allowed: p.Regions, Stores: []Store{}, Targets: []Target{}, Transfers: []Transfer{}, Denials: []Transfer{}, OK: true}
	if len(out.Allowed) == 0 {
		out.Allowed = []string{a.Region}
	}
	inside := func(region string) bool {
		ok := slices.Contains(out.Allowed, region)
		out.OK = out.OK && ok
		return ok
	}
	for _, s := range a.Stores {
		s.OK = inside(s.Region) && (s.KeyRegion == "" || inside(s.KeyRegion))
		out.Stores = append(out.Stores, s)
	}
	hooks, err := a.Webhooks.List(ctx, in.Project)
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		region := h.Region
		if region == "" {
			region = policy.Unlabelled
		}
		out.Targets = append(out.Targets, Target{"webhook", h.ID, h.Host(), region, inside(region)})
	}
	// A backup holds every project, so it is told in each.
	for action, project := range map[string]string{"dataset.export": in.Project, "webhook.create": in.Project, "webhook.test": in.Project, "backup.create": ""} {
		rows, err := a.Store.Recent(ctx, project, action, "", 0, 1000)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			switch {
			case r.Decision == "allow":
				out.Transfers = append(out.Transfers, transfer(r))
			case slices.Contains(r.Reasons, "residency"):
				out.Denials = append(out.Denials, transfer(r))
			}
		}
	}
	newest := func(x, y Transfer) int { return int(y.Seq - x.Seq) }
	slices.SortFunc(out.Transfers, newest)
	slices.SortFunc(out.Denials, newest)
	return answer(out), nil
}

func transfer(r ledger.Row) Transfer { return Transfer{r.Seq, r.Time, r.Actor, r.Action, r.Resource} }
