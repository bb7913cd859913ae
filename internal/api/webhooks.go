package api

import (
	"context"
	"net/http"

	"falaj/internal/flow"
	"falaj/internal/store"
)

// Webhook is where a project's events are delivered.
type Webhook struct {
	ID        string   `json:"id"`
	URL       string   `json:"url"`
	Region    string   `json:"region"`
	Types     []string `json:"types"`
	CreatedAt int64    `json:"created_at"`
	Actor     ActorRef `json:"actor"`
}

// NewWebhook is a webhook with its signing secret, which is shown once.
type NewWebhook struct {
	Webhook
	Secret string `json:"secret" doc:"verifies Falaj-Signature: t=SECONDS,v1=HEX, an HMAC-SHA256 over SECONDS.BODY"`
}

type webhookIn struct {
	InProject
	Body struct {
		URL    string   `json:"url" maxLength:"2000"`
		Region string   `json:"region,omitempty" maxLength:"20" doc:"where the host stands; it must be one of the project's, and none is outside of all"`
		Types  []string `json:"types,omitempty" doc:"event types or prefixes such as change.*; none: all"`
	}
}

type oneWebhookIn struct {
	InProject
	ID string `path:"webhook"`
}

func (a *API) webhooks() {
	add(a, "GET", "/projects/{p}/webhooks", "listWebhooks", "Webhooks of the project", "webhook.read", a.listWebhooks)
	add(a, "POST", "/projects/{p}/webhooks", "createWebhook", "Deliver events to a URL; the secret is shown once", "webhook.create", a.createWebhook, status(http.StatusCreated))
	add(a, "POST", "/projects/{p}/webhooks/{webhook}/test", "testWebhook", "Send one test event and say how it went", "webhook.test", a.testWebhook, status(http.StatusNoContent))
	add(a, "DELETE", "/projects/{p}/webhooks/{webhook}", "deleteWebhook", "Stop delivering", "webhook.delete", a.deleteWebhook, status(http.StatusNoContent))
}

func webhookOf(h flow.Webhook) Webhook {
	types := h.Types
	if types == nil {
		types = []string{}
	}
	return Webhook{ID: h.ID, URL: h.URL, Region: h.Region, Types: types, CreatedAt: store.Micros(h.Created), Actor: actorRef(h.Actor)}
}

func (a *API) listWebhooks(ctx context.Context, in *InProject) (*Out[Page[Webhook]], error) {
	list, err := a.Webhooks.List(ctx, in.Project)
	if err != nil {
		return nil, err
	}
	out := []Webhook{}
	for _, h := range list {
		out = append(out, webhookOf(h))
	}
	return page(out), nil
}

func (a *API) createWebhook(ctx context.Context, in *webhookIn) (*Out[NewWebhook], error) {
	h, secret, err := a.Webhooks.Create(ctx, flow.NewWebhook{Project: in.Project, URL: in.Body.URL, Types: in.Body.Types, Region: in.Body.Region})
	if err != nil {
		return nil, err
	}
	return answer(NewWebhook{webhookOf(h), secret}), nil
}

func (a *API) testWebhook(ctx context.Context, in *oneWebhookIn) (*struct{}, error) {
	return nil, a.Webhooks.Test(ctx, in.Project, in.ID)
}

func (a *API) deleteWebhook(ctx context.Context, in *oneWebhookIn) (*struct{}, error) {
	return nil, a.Webhooks.Delete(ctx, in.Project, in.ID)
}
