package mlflow

import (
	"io"
	"net/http"
	"slices"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/door"
)

// info is what clients ask to learn what the server can do. It is public, as in MLflow: nothing of a tenant is in it.
type info struct {
	StoreType       string          `json:"store_type"`
	Workspaces      bool            `json:"workspaces_enabled"`
	TraceArchival   bool            `json:"trace_archival_enabled"`
	MultipartUp     bool            `json:"multipart_uploads_enabled"`
	MultipartDown   bool            `json:"multipart_downloads_enabled"`
	PresignedRun    bool            `json:"presigned_upload_run_id_supported"`
	PresignedModel  bool            `json:"presigned_upload_model_id_supported"`
	FeaturesEnabled map[string]bool `json:"features_enabled"`
}

func (a *api) server() []door.Route {
	text := func(s string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, s) // fails only when the client is gone
		})
	}
	return slices.Concat(
		both(http.MethodGet, "/3.0/mlflow/server-info", "", 0, func(w http.ResponseWriter, _ *http.Request) {
			wire.Write(w, http.StatusOK, info{StoreType: "SqlStore", Workspaces: true, MultipartUp: true, FeaturesEnabled: map[string]bool{"gateway": false}})
		}),
		[]door.Route{
			{Method: http.MethodGet, Pattern: "/version", Public: true, Fault: writeFault, Handler: text(Version)},
			{Method: http.MethodGet, Pattern: "/health", Public: true, Fault: writeFault, Handler: text("OK")},
		},
	)
}
