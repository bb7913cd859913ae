package mlflow

import (
	"context"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"time"

	"falaj/internal/compat/mlflow/wire"
	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/tracking"
)

type fileList struct {
	Root  string      `json:"root_uri,omitempty"`
	Files []wire.File `json:"files,omitempty"`
}

// uploadToken is the header that carries the right to send a part.
const uploadToken = "X-Falaj-Upload-Token"

// proxy gives a route of the artifact proxy.
func proxy(method, tail string, action policy.Action, maxBody int64, fn func(w http.ResponseWriter, r *http.Request, project string) error) []door.Route {
	return both(method, "/2.0/mlflow-artifacts/"+tail, action, maxBody, func(w http.ResponseWriter, r *http.Request) {
		if err := fn(w, r, door.Project(r.Context())); err != nil {
			writeFault(w, r, fault.From(err))
		}
	})
}

func (a *api) artifacts() []door.Route {
	t := a.tracking
	return slices.Concat(
		call(a, http.MethodGet, "artifacts/list", "artifact.read", func(ctx context.Context, p string, in *wire.ListArtifacts) (any, error) {
			r, list, err := t.ListRunArtifacts(ctx, p, first(in.RunID, in.RunUUID), in.Path)
			return fileList{r.ArtifactURI, filesOut(list, in.Path)}, err
		}),
		call(a, http.MethodPost, "artifacts/presigned-upload-url", "artifact.write", func(context.Context, string, *wire.PresignedURL) (any, error) {
			return nil, invalid("Presigned upload is not supported for proxied artifact storage (artifact URI scheme: mlflow-artifacts). This endpoint requires a direct cloud storage artifact URI.")
		}),
		call(a, http.MethodPost, "artifacts/presigned-download-url", "artifact.read", func(context.Context, string, *wire.PresignedURL) (any, error) {
			return nil, invalid("Presigned download is not supported for runs with proxied artifact storage (artifact URI scheme: mlflow-artifacts). This endpoint requires a run with a direct cloud storage artifact URI.")
		}),
		proxy(http.MethodGet, "artifacts", "artifact.read", 0, func(w http.ResponseWriter, r *http.Request, p string) error {
			list, err := t.ListArtifacts(r.Context(), p, r.URL.Query().Get("path"))
			if err == nil {
				wire.Write(w, http.StatusOK, fileList{Files: filesOut(list, "")})
			}
			return err
		}),
		proxy(http.MethodGet, "artifacts/{path...}", "artifact.read", 0, a.download),
		proxy(http.MethodPut, "artifacts/{path...}", "artifact.write", -1, func(w http.ResponseWriter, r *http.Request, p string) error {
			_, err := t.PutArtifact(r.Context(), p, r.PathValue("path"), r.Body)
			if err == nil {
				wire.Write(w, http.StatusOK, empty{})
			}
			return err
		}),
		proxy(http.MethodDelete, "artifacts/{path...}", "artifact.delete", 0, func(w http.ResponseWriter, r *http.Request, p string) error {
			err := t.DeleteArtifacts(r.Context(), p, r.PathValue("path"))
			if err == nil {
				wire.Write(w, http.StatusOK, empty{})
			}
			return err
		}),
		proxy(http.MethodGet, "presigned/{path...}", "artifact.read", 0, func(http.ResponseWriter, *http.Request, string) error {
			return fault.New(fault.Unsupported, "Presigned download is not supported for the current artifact repository", "Download through the server.")
		}),
		proxy(http.MethodPost, "mpu/create/{path...}", "artifact.write", 0, a.createUpload),
		proxy(http.MethodPost, "mpu/complete/{path...}", "artifact.write", 0, a.completeUpload),
		proxy(http.MethodPost, "mpu/abort/{path...}", "artifact.write", 0, func(w http.ResponseWriter, r *http.Request, p string) error {
			var in wire.CompleteUpload
			if err := wire.Decode(r, a.rules["mpu/abort"], &in); err != nil {
				return err
			}
			err := t.AbortUpload(r.Context(), p, in.UploadID)
			if err == nil {
				wire.Write(w, http.StatusOK, empty{})
			}
			return err
		}),
		// Parts are sent without the client's credentials: the token in the header stands for them.
		proxy(http.MethodPut, "mpu/part/{upload}/{part}", "", -1, a.putPart),
	)
}

// download streams a file; http.ServeContent answers ranges and conditions. It is always an attachment: an artifact is not a page.
func (a *api) download(w http.ResponseWriter, r *http.Request, p string) error {
	at := r.PathValue("path")
	o, err := a.tracking.OpenArtifact(r.Context(), p, at)
	if err != nil {
		return err
	}
	defer o.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(at)}))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", `"`+o.Digest()+`"`)
	http.ServeContent(w, r, "", time.Time{}, o)
	return nil
}

func (a *api) createUpload(w http.ResponseWriter, r *http.Request, p string) error {
	var in wire.CreateUpload
	if err := wire.Decode(r, a.rules["mpu/create"], &in); err != nil {
		return err
	}
	if in.NumParts < 1 || in.NumParts > tracking.MaxParts {
		return invalid("Invalid value %d for parameter 'num_parts' supplied. It must be between 1 and %d.", in.NumParts, tracking.MaxParts)
	}
	up, err := a.tracking.CreateUpload(r.Context(), p, r.PathValue("path")+"/"+path.Base(in.Path))
	if err != nil {
		return err
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	base := scheme + "://" + r.Host + "/p/" + p + "/api/2.0/mlflow-artifacts/mpu/part/" + up.ID + "/"
	out := struct {
		ID          string            `json:"upload_id"`
		Credentials []wire.Credential `json:"credentials"`
	}{ID: up.ID}
	for n := 1; n <= int(in.NumParts); n++ {
		out.Credentials = append(out.Credentials, wire.Credential{URL: base + strconv.Itoa(n), PartNumber: n, Headers: map[string]string{uploadToken: up.Token}})
	}
	wire.Write(w, http.StatusOK, out)
	return nil
}

func (a *api) putPart(w http.ResponseWriter, r *http.Request, p string) error {
	n, err := strconv.Atoi(r.PathValue("part"))
	if err != nil {
		return invalid("Invalid part number '%s'.", clip(r.PathValue("part")))
	}
	ref, err := a.tracking.PutPart(r.Context(), p, r.PathValue("upload"), r.Header.Get(uploadToken), n, r.Body)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", `"`+ref.Digest+`"`)
	wire.Write(w, http.StatusOK, empty{})
	return nil
}

func (a *api) completeUpload(w http.ResponseWriter, r *http.Request, p string) error {
	var in wire.CompleteUpload
	if err := wire.Decode(r, a.rules["mpu/complete"], &in); err != nil {
		return err
	}
	var parts []int
	for _, x := range in.Parts {
		parts = append(parts, int(x.Number))
	}
	_, err := a.tracking.CompleteUpload(r.Context(), p, in.UploadID, parts)
	if err == nil {
		wire.Write(w, http.StatusOK, empty{})
	}
	return err
}
