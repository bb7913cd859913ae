package api

import (
	"context"
	"net/http"
	"slices"

	"falaj/internal/access"
	"falaj/internal/kernel/policy"
	"falaj/internal/kernel/who"
	"falaj/internal/store"
)

// Project is a project as the caller sees it.
type Project struct {
	Name        string        `json:"name"`
	Description string        `json:"description"`
	Residency   []string      `json:"residency"`
	Roles       []policy.Role `json:"roles"`
	Models      int           `json:"models"`
	CreatedAt   int64         `json:"created_at"`
}

type projectIn struct {
	Body struct {
		Name        string   `json:"name"`
		Description string   `json:"description,omitempty"`
		Regions     []string `json:"residency,omitempty"`
	}
}

func (a *API) projects() {
	add(a, "GET", "/projects", "listProjects", "The projects the caller may read", "me.read", a.listProjects, installation("Project"))
	add(a, "POST", "/projects", "createProject", "Create a project; again is no error", "project.create", a.createProject, installation("Project"), status(http.StatusCreated))
}

func (a *API) listProjects(ctx context.Context, _ *struct{}) (*Out[Page[Project]], error) {
	list, err := a.Access.Projects(ctx)
	if err != nil {
		return nil, err
	}
	out := []Project{}
	for _, p := range list {
		v, err := a.project(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return page(out), nil
}

func (a *API) createProject(ctx context.Context, in *projectIn) (*Out[Project], error) {
	p, err := a.Access.CreateProject(ctx, in.Body.Name, in.Body.Description, in.Body.Regions)
	if err != nil {
		return nil, err
	}
	v, err := a.project(ctx, p)
	return answer(v), err
}

func (a *API) project(ctx context.Context, p access.Project) (Project, error) {
	v := Project{Name: p.Name, Description: p.Description, Residency: p.Regions, Roles: []policy.Role{}, CreatedAt: store.Micros(p.Created)}
	if v.Residency == nil {
		v.Residency = []string{}
	}
	bindings, err := a.Access.Bindings(ctx, p.Name)
	if err != nil {
		return v, err
	}
	me := who.From(ctx)
	mine := []string{me.String()}
	for _, g := range me.Groups {
		mine = append(mine, "group:"+g)
	}
	for _, b := range bindings {
		if slices.Contains(mine, b.Principal) && !slices.Contains(v.Roles, b.Role) {
			v.Roles = append(v.Roles, b.Role)
		}
	}
	return v, nil
}
