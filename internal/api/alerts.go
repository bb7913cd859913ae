package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"falaj/internal/kernel/note"
	"falaj/internal/monitoring"
	"falaj/internal/plan/pipeline"
)

// Alert says that a window broke its monitor. Times are event time.
type Alert struct {
	ID          string    `json:"id"`
	At          int64     `json:"at"`
	ResolvedAt  *int64    `json:"resolved_at"`
	Type        string    `json:"type"`
	Severity    string    `json:"severity" enum:"critical,warning,info"`
	Environment string    `json:"environment"`
	Version     *int64    `json:"version"`
	Note        note.Note `json:"note"`
	Observed    *float64  `json:"observed"`
	Threshold   *float64  `json:"threshold"`
	Caused      *note.Ref `json:"caused" doc:"the pipeline run that it started"`
}

// shown is how many alerts a page shows.
const shownAlerts = 50

// alertNote is the sentence of an alert; arguments are texts and numbers only.
func alertNote(al monitoring.Alert) note.Note {
	n := note.Note{Code: al.Kind, Args: map[string]any{}, Text: al.Text}
	for k, v := range al.Args {
		switch v := v.(type) {
		case nil:
		case string, float64, int, int64:
			n.Args[k] = v
		case []any:
			words := make([]string, len(v))
			for i, w := range v {
				words[i] = fmt.Sprint(w)
			}
			n.Args[k] = strings.Join(words, ", ")
		default:
			n.Args[k] = fmt.Sprint(v)
		}
	}
	return n
}

func arg(al monitoring.Alert, name string) *float64 {
	if v, ok := al.Args[name].(float64); ok {
		return finite(v)
	}
	return nil
}

func alertView(f *fleet, al monitoring.Alert) Alert {
	out := Alert{ID: al.ID, At: microsOf(al.At), Type: al.Kind, Severity: "warning", Environment: al.Environment, Note: alertNote(al)}
	release, _ := al.Args["release"].(string)
	switch al.Kind {
	case monitoring.QualityDegraded:
		out.Severity = "critical"
		out.Observed, out.Threshold = arg(al, "gap"), arg(al, "min_gap")
		release, _ = al.Args["champion"].(string)
	case monitoring.DriftDetected:
		out.Observed, out.Threshold = arg(al, "weighted"), arg(al, "threshold")
	}
	out.Version = numberOrNil(f.number(release))
	return out
}

// judged are the windows of a key, which also tell when an alert was resolved.
type judged struct {
	monitor *monitoring.Monitor // nil: nothing is watched
	quality []monitoring.QualityWindow
	drift   []monitoring.DriftWindow
}

// resolvedAt is the event time at which the first good window after the alert's was judged.
func (j judged) resolvedAt(al monitoring.Alert) int64 {
	if al.Kind == monitoring.QualityDegraded {
		for _, w := range j.quality {
			if w.From.After(al.Window.From) && w.Verdict == monitoring.VerdictOK {
				end := w.To
				if j.monitor != nil {
					end = end.Add(j.monitor.Quality.LabelsAfter)
				}
				return microsOf(end)
			}
		}
		return microsOf(al.At)
	}
	for _, w := range j.drift {
		good := w.Verdict == monitoring.VerdictOK || al.Kind == monitoring.FeaturesMissing && w.Verdict == monitoring.VerdictDrifted && len(w.Missing) == 0
		if w.From.After(al.Window.From) && good {
			return microsOf(w.To)
		}
	}
	return microsOf(al.At)
}

// alertList gives the alerts of a model, open first, then newest first; environment "" takes all.
func (a *API) alertList(ctx context.Context, f *fleet, k monitoring.Key, windows judged, runs []pipeline.Run) ([]Alert, error) {
	all, err := a.Monitoring.Alerts(ctx, k, "", 500)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(x, y monitoring.Alert) int { return rank(x) - rank(y) })
	out := []Alert{}
	for _, al := range all[:min(len(all), shownAlerts)] {
		v := alertView(f, al)
		if al.State == monitoring.AlertResolved {
			at := windows.resolvedAt(al)
			v.ResolvedAt = &at
		}
		if r := startedBy(al, all, runs); r != "" {
			v.Caused = &note.Ref{Kind: "pipeline_run", ID: r}
		}
		out = append(out, v)
	}
	return out, nil
}

func rank(al monitoring.Alert) int {
	if al.State == monitoring.AlertResolved {
		return 1
	}
	return 0
}

// startedBy finds the retraining that an alert set off: the first of its reason after it and before the next alert of
// the kind. A retraining names the gap of its alert, which is compared where it is there.
func startedBy(al monitoring.Alert, all []monitoring.Alert, runs []pipeline.Run) string {
	code := map[string]string{monitoring.QualityDegraded: "retrain.quality", monitoring.DriftDetected: "retrain.drift"}[al.Kind]
	if code == "" {
		return ""
	}
	for i := len(runs) - 1; i >= 0; i-- { // oldest first
		r := runs[i]
		if r.Model != al.Model || r.Pipeline != pipeline.RetrainPipeline || r.Request.Reason.Code != code || r.Created.Before(al.Created) {
			continue
		}
		if gap, ok := r.Request.Reason.Args["gap"].(float64); ok && al.Kind == monitoring.QualityDegraded && gap != al.Args["gap"] {
			continue
		}
		if slices.ContainsFunc(all, func(o monitoring.Alert) bool {
			return o.Kind == al.Kind && o.ID != al.ID && o.Created.After(al.Created) && !o.Created.After(r.Created)
		}) {
			return ""
		}
		return r.ID
	}
	return ""
}
