package api

import (
	"log/slog"

	"falaj/internal/access"
	"falaj/internal/audit"
	"falaj/internal/backup"
	"falaj/internal/blob"
	"falaj/internal/data"
	"falaj/internal/delivery"
	"falaj/internal/features"
	"falaj/internal/flow"
	"falaj/internal/lineage"
	"falaj/internal/monitoring"
	"falaj/internal/plan/pipeline"
	"falaj/internal/registry"
	"falaj/internal/secret"
	"falaj/internal/serving"
	"falaj/internal/store"
	"falaj/internal/tracking"
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
	Data       *data.Service
	Features   *features.Service
	Tracking   *tracking.Service
	Registry   *registry.Service
	Secrets    *secret.Service
	Serving    *serving.Service
	Lineage    *lineage.Service
	Relay      *flow.Relay
	Webhooks   *flow.Webhooks
	Backups    *backup.Service
	Log        *slog.Logger
	Version    string
	Region     string  // of this installation
	Stores     []Store // where it keeps bytes
	Open       bool
	Secure     bool // served by TLS: browsers send the session's cookie by TLS only
	SSO        *SSO // nil: people have passwords only
}
