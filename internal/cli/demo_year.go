package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"falaj/internal/api"
	"falaj/internal/kernel/fault"
)

// year replays the flights (chapters 11 to 17). With fast only five weeks of summer and December, else April to December; it stops where
// December's window is judged, so that layla's last idea meets it.
func (d *play) year(ctx context.Context) error {
	if err := d.known(ctx); err != nil {
		return err
	}
	judged := date(time.December, 24) // the window of 9 to 23 December, and a day for its labels
	if !d.fast {
		april, july := date(time.April, 1), date(time.July, 1)
		if err := d.replay(ctx, april, april, july); err != nil {
			return err
		}
		d.tell(11, "models/"+demoModel, map[string]any{"sent": d.sent}, "April to June: the service replay sent %s flights, and their labels as they arrived", thousands(d.sent))
		return d.replay(ctx, april, july, judged)
	}
	// The canary has seen enough on 29 July. One whose server was killed has forgotten what it saw, and needs the week more.
	july, august := date(time.July, 1), date(time.August, 5)
	if err := d.arrive(ctx, july); err != nil {
		return err
	}
	if err := d.replay(ctx, july, july, august); err != nil {
		return err
	}
	d.tell(11, "models/"+demoModel, map[string]any{"sent": d.sent}, "1 July to 4 August: %s flights sent, and their labels as they arrived", thousands(d.sent))
	december := date(time.December, 9)
	if err := d.arrive(ctx, december); err != nil {
		return err
	}
	return d.replay(ctx, december, december, judged)
}

// arrive lets event time jump to a day without traffic before it.
func (d *play) arrive(ctx context.Context, at time.Time) error {
	mark, err := d.watermark(ctx)
	if err != nil {
		return err
	}
	if mark.Before(at) {
		if err := d.clock(ctx, at); err != nil {
			return err
		}
	}
	if _, err := d.settle(ctx); err != nil {
		return err
	}
	return d.react(ctx, at)
}

// known marks what an earlier call has told already, so that only news is told; a canary under way is taken up.
func (d *play) known(ctx context.Context) error {
	var list api.Page[api.ChangeSummary]
	if err := d.layla.call(ctx, "GET", in(demoProject, "changes")+"?limit=100", nil, &list); err != nil {
		return err
	}
	for _, c := range list.Items {
		if c.State == "rolling_out" {
			d.rolling = c.ID
		}
		if c.State == "closed" || c.State == "refused" || c.State == "rolling_out" {
			d.told["change "+c.ID] = true
		}
	}
	return nil
}

// react tells what a turn of the clock has set off, and lets omar decide what waits for him.
func (d *play) react(ctx context.Context, now time.Time) error {
	var m api.ModelDetail
	if err := d.layla.call(ctx, "GET", in(demoProject, "models", demoModel), nil, &m); err != nil {
		return err
	}
	champion := championOf(m)
	for _, a := range slices.Backward(m.Alerts) {
		// A window that ended before the change may be judged after it: it speaks of a model that is gone.
		if d.new("alert "+a.ID) && (a.Caused != nil || or(a.Version) == champion) {
			n := 13
			if a.Type == "drift.detected" {
				n = 16
			}
			d.tell(n, "models/"+demoModel, map[string]any{"alert": a.Type, "args": a.Note.Args, "at": a.At}, "%s: %s. %s", now.Format("2 January"), a.Type, a.Note.Text)
		}
	}
	var runs api.Page[api.PipelineRunSummary]
	if err := d.layla.call(ctx, "GET", in(demoProject, "pipelines", "runs")+"?limit=50", nil, &runs); err != nil {
		return err
	}
	for _, r := range slices.Backward(runs.Items) {
		if r.Pipeline != "challenge" && r.Pipeline != "retrain" || r.State == "waiting" || r.State == "running" || !d.new("run "+r.ID) {
			continue
		}
		full, err := d.ran(ctx, r.ID)
		if err != nil {
			return err
		}
		n, what := 12, "runs in the champion's shadow"
		if r.Pipeline == "retrain" {
			n, what = 14, "is trained"
			for _, s := range full.StepList {
				if s.Kind == "train" && s.State == "cached" {
					what = "came from the step cache"
				}
			}
		}
		d.tell(n, "pipelines/"+r.ID, map[string]any{"pipeline": r.Pipeline, "version": madeOf(full), "trigger": r.Trigger.Code}, "%s: %s@%d %s (%s)", now.Format("2 January"), demoModel, madeOf(full), what, r.Trigger.Text)
	}
	return d.decide(ctx, now)
}

// championOf is the version that serves production.
func championOf(m api.ModelDetail) int64 {
	for _, e := range m.Environments {
		if e.Environment == "production" {
			return or(e.Version)
		}
	}
	return 0
}

func (d *play) new(what string) bool {
	old := d.told[what]
	d.told[what] = true
	return !old
}

// decide tells the machinery's own changes, and approves the one that waits.
func (d *play) decide(ctx context.Context, now time.Time) error {
	var list api.Page[api.ChangeSummary]
	if err := d.layla.call(ctx, "GET", in(demoProject, "changes")+"?limit=20", nil, &list); err != nil {
		return err
	}
	for _, s := range slices.Backward(list.Items) {
		if d.told["change "+s.ID] {
			continue
		}
		var c api.ChangeDetail
		if err := d.layla.call(ctx, "GET", in(demoProject, "changes", s.ID), nil, &c); err != nil {
			return err
		}
		switch c.State {
		case "refused":
			d.tell(16, "changes/"+c.ID, changeFacts(c), "%s: %s@%d is refused for %s by its evidence: %s", now.Format("2 January"), c.Model, c.ToVersion, c.Environment, gates(c, true))
		case "pending_approval":
			after, err := d.approve(ctx, c.ID, "it is better on flights it has not seen")
			if err != nil {
				return err
			}
			d.tell(14, "changes/"+c.ID, changeFacts(c), "%s@%d passed %s", c.Model, c.ToVersion, gates(c, false))
			d.tell(15, "changes/"+c.ID, changeFacts(after), "omar approves: %s@%d begins as a canary", c.Model, c.ToVersion)
			if after.State == "rolling_out" {
				d.rolling = c.ID
			}
		case "closed":
		default:
			continue
		}
		d.told["change "+s.ID] = true
	}
	return nil
}

// canary looks at the roll-out under way. As soon as it has seen what this weight needs its next move is waited for; else
// the next day brings more. A server that was killed has forgotten what its canary saw: then it takes some days more.
func (d *play) canary(ctx context.Context) error {
	const answers, patience = 200, 10 * time.Second // answers for each weight, as the server asks for
	moves, enough, limit := 0, false, time.Now().Add(patience)
	for {
		var c api.ChangeDetail
		if err := d.layla.call(ctx, "GET", in(demoProject, "changes", d.rolling), nil, &c); err != nil {
			return err
		}
		var weights []string
		for _, e := range c.Events {
			if e.Type == "pointer.moved" {
				weights = append(weights, fmt.Sprint(e.Note.Args["weight"]))
			}
		}
		if c.State == "closed" {
			d.rolling = ""
			d.tell(15, "models/"+demoModel, map[string]any{"weights": weights, "version": c.ToVersion}, "%s@%d took %s %% of the flights and is the champion; %s@%d stays one command away", c.Model, c.ToVersion, strings.Join(weights, ", "), c.Model, or(c.FromVersion))
			return nil
		}
		if c.State != "rolling_out" && c.State != "implementing" {
			d.rolling = ""
			return d.mustBe(c, "closed")
		}
		if len(weights) != moves {
			n, err := d.seen(ctx, c.ToVersion)
			if err != nil {
				return err
			}
			moves, enough, limit = len(weights), n >= uint64(answers*len(weights)), time.Now().Add(patience)
			d.env.progress(fmt.Sprintf("%s@%d has answered %d flights as a canary", c.Model, c.ToVersion, n))
		}
		if !enough && c.State == "rolling_out" || time.Now().After(limit) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func or(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// seen is how many callers a version has answered in production.
func (d *play) seen(ctx context.Context, version int64) (n uint64, err error) {
	t, err := d.traffic(ctx)
	for _, r := range t.Items {
		if !r.Shadow && or(r.Version) == version {
			n += r.Predictions
		}
	}
	return n, err
}

func (d *play) traffic(ctx context.Context) (t api.Traffic, err error) {
	return t, d.layla.call(ctx, "GET", in(demoProject, "models", demoModel, "traffic"), nil, &t)
}

// loser is layla's idea of December: old data only confuses it (chapter 18). Then the year ends.
func (d *play) loser(ctx context.Context) error {
	from, err := d.window(ctx)
	if err != nil {
		return err
	}
	r, err := d.pipeline(ctx, "demo-train-91-days", map[string]any{"model": demoModel, "until": from.UnixMicro(), "params": map[string]string{"history_days": "91"}}, nil)
	if err != nil {
		return err
	}
	v, err := d.version(ctx, madeOf(r))
	if err != nil {
		return err
	}
	c, err := d.change(ctx, "demo-staging-91-days", v.Version, "staging", "old data only confuses it")
	if err != nil {
		return err
	}
	if err := d.mustBe(c, "closed"); err != nil {
		return err
	}
	if c, err = d.change(ctx, "demo-production-91-days", v.Version, "production", "old data only confuses it"); err != nil {
		return err
	}
	if err := d.mustBe(c, "refused"); err != nil {
		return err
	}
	facts := changeFacts(c)
	facts["test_auc"] = v.Metrics["test_auc"]
	d.tell(18, "changes/"+c.ID, facts, "layla trains %s@%d on the newest 91 days only, test_auc %s; production refuses it: %s", demoModel, v.Version, figure(v.Metrics["test_auc"]), gates(c, true))
	if d.fast {
		return nil
	}
	return d.replay(ctx, date(time.April, 1), date(time.December, 24), date(time.December, 31)) // with the new year another quarter would begin
}

// window is where the newest judged window begins: what a fair challenger may have learned ends there.
func (d *play) window(ctx context.Context) (time.Time, error) {
	var t api.Telemetry
	if err := d.layla.call(ctx, "GET", in(demoProject, "models", demoModel, "telemetry"), nil, &t); err != nil {
		return time.Time{}, err
	}
	for _, w := range slices.Backward(t.Quality.Windows) {
		if w.To <= date(time.December, 24).UnixMicro() && w.Verdict != "too_few_labels" {
			return time.UnixMicro(w.From).UTC(), nil
		}
	}
	return time.Time{}, fault.New(fault.Internal, "No window of December was judged.", d.page("models/"+demoModel))
}

// check asks why, counts, and has the record verified (chapter 19).
func (d *play) check(ctx context.Context) error {
	t, err := d.traffic(ctx)
	if err != nil {
		return err
	}
	var answered, shadows uint64
	for _, r := range t.Items {
		if r.Shadow {
			shadows += r.Predictions
		} else {
			answered += r.Predictions
		}
	}
	if answered != uint64(d.sent) {
		return fault.Newf(fault.Internal, "%d flights were sent, but the log holds %d predictions.", d.sent, answered)
	}
	var why json.RawMessage
	if err := d.layla.call(ctx, "GET", in(demoProject, "models", demoModel, "why")+query("environment", "production"), nil, &why); err != nil {
		return err
	}
	var v api.AuditVerification
	if err := d.admin.call(ctx, "GET", "/audit/verify?deep=true", nil, &v); err != nil {
		return err
	}
	if !v.OK {
		return fault.Newf(fault.Refused, "The record is broken in %d places.", len(v.All))
	}
	var m api.ModelDetail
	if err := d.layla.call(ctx, "GET", in(demoProject, "models", demoModel), nil, &m); err != nil {
		return err
	}
	champion := championOf(m)
	d.tell(19, "lineage", map[string]any{"predictions": answered, "shadow": shadows, "entries": v.Entries, "events": v.Events, "blobs": v.Blobs, "champion": champion, "verified": v.OK},
		"%s predictions, not one twice; %s@%d serves; the record is clean: %s entries, %s events, %s blobs verified", thousands(answered), demoModel, champion, thousands(v.Entries), thousands(v.Events), thousands(v.Blobs))
	return nil
}
