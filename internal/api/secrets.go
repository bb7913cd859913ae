package api

import (
	"context"
	"net/http"

	"falaj/internal/secret"
	"falaj/internal/store"
)

// Secret is what may be told of a secret; no operation answers its value.
type Secret struct {
	Name    string   `json:"name"`
	Version int64    `json:"version"`
	SetAt   int64    `json:"set_at"`
	Actor   ActorRef `json:"actor"`
}

type oneSecretIn struct {
	InProject
	Name string `path:"secret"`
}

type secretIn struct {
	InProject
	Name string `path:"secret"`
	Body struct {
		Value string `json:"value" doc:"8 bytes to 64 KiB; it is never shown again"`
	}
}

func (a *API) secrets() {
	add(a, "GET", "/projects/{p}/secrets", "listSecrets", "Names and versions of the project's secrets", "secret.read", a.listSecrets)
	add(a, "PUT", "/projects/{p}/secrets/{secret}", "setSecret", "Set a secret or give it a new value; the next step uses it", "secret.set", a.setSecret, body(1<<20), on("Secret", "secret"))
	add(a, "DELETE", "/projects/{p}/secrets/{secret}", "removeSecret", "Forget a secret", "secret.remove", a.removeSecret, on("Secret", "secret"), status(http.StatusNoContent))
}

func secretOf(i secret.Info) Secret {
	return Secret{Name: i.Name, Version: i.Version, SetAt: store.Micros(i.Created), Actor: actorRef(i.Actor)}
}

func (a *API) listSecrets(ctx context.Context, in *InProject) (*Out[Page[Secret]], error) {
	list, err := a.Secrets.List(ctx, in.Project)
	if err != nil {
		return nil, err
	}
	out := []Secret{}
	for _, i := range list {
		out = append(out, secretOf(i))
	}
	return page(out), nil
}

func (a *API) setSecret(ctx context.Context, in *secretIn) (*Out[Secret], error) {
	i, err := a.Secrets.Set(ctx, in.Project, in.Name, []byte(in.Body.Value))
	if err != nil {
		return nil, err
	}
	return answer(secretOf(i)), nil
}

func (a *API) removeSecret(ctx context.Context, in *oneSecretIn) (*struct{}, error) {
	return nil, a.Secrets.Remove(ctx, in.Project, in.Name)
}
