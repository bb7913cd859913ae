package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"falaj/internal/backup"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
)

// streams are the routes that do not fit huma: uploads of any size and server-sent events.
func (a *API) streams() {
	a.routes = append(a.routes,
		door.Route{Method: "GET", Pattern: Base + "/projects/{p}/events", Action: "event.read", Handler: http.HandlerFunc(a.events)},
		door.Route{Method: "PUT", Pattern: Base + "/projects/{p}/blobs/{digest}", Action: "source.upload", MaxBody: -1, Handler: http.HandlerFunc(a.putBlob)},
		door.Route{Method: "POST", Pattern: Base + "/projects/{p}/datasets/{d}/versions/{n}/export", Action: "dataset.read", Handler: http.HandlerFunc(a.export)},
		door.Route{Method: "HEAD", Pattern: Base + "/projects/{p}/blobs/{digest}", Action: "source.upload", Handler: http.HandlerFunc(a.headBlob)},
		door.Route{Method: "POST", Pattern: Base + "/backups", Action: "backup.create", Resource: everything, MaxBody: 2 * backup.MaxKeys, Handler: http.HandlerFunc(a.createBackup)},
	)
}

// export streams a version as Parquet to a place in ?region=. The stage asks whether it may leave; what it is stands in the
// header Falaj-Export, as JSON.
func (a *API) export(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil {
		door.Problem(w, r, fault.New(fault.Invalid, "'"+r.PathValue("n")+"' is not the number of a version.", "0 is the latest.").At("n"))
		return
	}
	e, err := a.Data.Export(r.Context(), r.PathValue("p"), r.PathValue("d"), n, r.URL.Query().Get("region"))
	if err != nil {
		door.Problem(w, r, fault.From(err))
		return
	}
	defer e.Close()
	about, err := json.Marshal(e)
	if err != nil {
		door.Problem(w, r, fault.From(err))
		return
	}
	w.Header().Set("Content-Type", "application/vnd.apache.parquet")
	w.Header().Set("Content-Length", strconv.FormatInt(e.Bytes, 10))
	w.Header().Set("Falaj-Export", string(about))
	_, _ = io.Copy(w, e) // the caller sees a short body
}

// events sends the project's CloudEvents as they are committed; ?after= or Last-Event-ID resumes.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	from := r.URL.Query().Get("after")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		from = id
	}
	var after int64
	if from == "" {
		_, last, err := a.Store.Head(r.Context())
		if err != nil {
			door.Problem(w, r, fault.From(err))
			return
		}
		after = last
	} else {
		var err error
		if after, err = strconv.ParseInt(from, 10, 64); err != nil {
			door.Problem(w, r, fault.New(fault.Invalid, "'after' is not a sequence number.", "").At("after"))
			return
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.SetWriteDeadline(time.Time{})
	_ = flush.Flush()
	events := a.Relay.Tail(r.Context(), after, r.PathValue("p"))
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			if _, err := fmt.Fprint(w, ": keep-alive\n\n"); err != nil {
				return
			}
		case e, ok := <-events:
			if !ok {
				return
			}
			b, err := json.Marshal(e)
			if err != nil {
				a.Log.Error("an event could not be written", "seq", e.Seq, "err", err)
				continue
			}
			if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, b); err != nil {
				return
			}
		}
		if flush.Flush() != nil {
			return
		}
	}
}

// putBlob stores the body under its digest; a body with another digest is refused and leaves nothing.
func (a *API) putBlob(w http.ResponseWriter, r *http.Request) {
	ref, err := a.Blobs.PutExpect(r.Context(), r.PathValue("p"), r.PathValue("digest"), r.Body)
	if err != nil {
		f := fault.From(err)
		if f.Kind == fault.Internal {
			a.Log.Error("an upload failed", "err", err)
		}
		door.Problem(w, r, f)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"digest": ref.Digest, "size": ref.Size})
}

func (a *API) headBlob(w http.ResponseWriter, r *http.Request) {
	info, err := a.Blobs.Stat(r.Context(), r.PathValue("p"), r.PathValue("digest"))
	if err != nil {
		w.WriteHeader(fault.KindOf(err).HTTP())
		return
	}
	w.Header().Set("X-Size", strconv.FormatInt(info.Size, 10))
	w.WriteHeader(http.StatusOK)
}
