package api

import (
	"log/slog"

	"falaj/internal/access"
	"falaj/internal/audit"
	"falaj/internal/blob"
	"falaj/internal/delivery"
	"falaj/internal/flow"
	"falaj/internal/monitoring"
	"falaj/internal/plan/pipeline"
	"falaj/internal/store"
)

// Deps is what app gives the API.
type Deps struct {
	Store      *store.Store
	Access     *access.Service
	Audit      *audit.Service
	Blobs      *blob.Store
	Delivery   *delivery.Service
	Pipelines  *pipeline.Service
	Monitoring *monitoring.Service
	Relay      *flow.Relay
	Webhooks   *flow.Webhooks
	Log        *slog.Logger
	Version    string
	Open       bool
}
