package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"falaj/internal/api"
	"falaj/internal/delivery"
	"falaj/internal/kernel/fault"
	"falaj/internal/plan"
	"falaj/internal/plan/pipeline"
)

// bring applies the project and brings the data: January to March, a damaged April, then the whole year (chapters 1 to 4).
func (d *play) bring(ctx context.Context) error {
	d.tell(1, "models", map[string]any{"principals": []string{"user:layla", "user:omar", "service:replay"}}, "a server at %s, with layla (engineer), omar (approver in ml-risk) and the service replay", d.base)
	f, err := openFolder(filepath.Join(d.project, "falaj.yaml"), false)
	if err != nil {
		return err
	}
	defer f.close()
	b, err := f.bundle(ctx, d.layla)
	if err != nil {
		return err
	}
	var applied api.Applied
	if err := d.layla.call(ctx, "POST", in(demoProject, "apply"), b, &applied); err != nil {
		return err
	}
	if _, err := d.ingest(ctx, "demo-quarter", map[string][]string{"flights": months()[:3], "weather": months()[:3]}, ""); err != nil {
		return err
	}
	var v api.DatasetVersion
	if err := d.layla.call(ctx, "GET", in(demoProject, "datasets", "flights", "versions", "1"), nil, &v); err != nil {
		return err
	}
	var w api.DatasetVersion
	if err := d.layla.call(ctx, "GET", in(demoProject, "datasets", "weather", "versions", "1"), nil, &w); err != nil {
		return err
	}
	d.tell(2, "data/flights/1", map[string]any{"rows": v.Rows, "weather_rows": w.Rows}, "layla applies the project and brings January to March: %s flights, %s hours of weather (%d put aside by the contract)", thousands(v.Rows), thousands(w.Rows), w.Quarantined)

	if _, err := d.ingest(ctx, "demo-april-damaged", map[string][]string{"flights": {"2013-04.csv"}}, "damaged"); err != nil {
		return err
	}
	q, rows, err := d.refused(ctx)
	if err != nil {
		return err
	}
	d.tell(3, "data/flights/quarantine/"+q.ID, map[string]any{"rows": q.Rows, "of": q.TotalRows, "scope": q.Scope, "shown": len(rows.Items)},
		"April comes damaged: %s of %s rows (%s) break the contract, so the file is refused as a whole; line %d: %s", thousands(q.Rows), thousands(q.TotalRows), percent(q.Rows, q.TotalRows), rows.Items[0].Line, rows.Items[0].Violations[0].Check.Text)

	if _, err := d.ingest(ctx, "demo-year", map[string][]string{"flights": months(), "weather": months()}, ""); err != nil {
		return err
	}
	var s api.DatasetDetail
	if err := d.layla.call(ctx, "GET", in(demoProject, "datasets", "flights"), nil, &s); err != nil {
		return err
	}
	if s.Latest == nil {
		return fault.New(fault.Internal, "The dataset flights has no version after its ingest.", "")
	}
	d.tell(4, fmt.Sprintf("data/flights/%d", s.Latest.Version), map[string]any{"version": s.Latest.Version, "rows": s.Latest.Rows}, "the airline sends April again, and all other months: flights version %d has %s rows", s.Latest.Version, thousands(s.Latest.Rows))
	return nil
}

// ingest brings monthly files by dataset; from is the folder of flights, "" for the real ones.
func (d *play) ingest(ctx context.Context, key string, files map[string][]string, from string) (api.PipelineRun, error) {
	return d.pipeline(ctx, key, map[string]any{"pipeline": "ingest"}, func() (map[string][]pipeline.SourceFile, error) {
		out := map[string][]pipeline.SourceFile{}
		for dataset, names := range files {
			dir := dataset
			if from != "" {
				dir = from
			}
			root, err := os.OpenRoot(filepath.Join(d.dir, "months", dir))
			if err != nil {
				return nil, err
			}
			defer root.Close()
			f := &folder{root: root, project: &plan.Project{Name: demoProject}}
			for _, name := range names {
				d.env.progress("sending " + dataset + " " + name)
				digest, err := f.send(ctx, d.layla, name)
				if err != nil {
					return nil, err
				}
				out[dataset] = append(out[dataset], pipeline.SourceFile{Name: name, Digest: digest})
			}
			// What the server reads lies where a user's project has it, too.
			for _, name := range names {
				b, err := root.ReadFile(name)
				if err != nil {
					return nil, err
				}
				if err := keepFile(filepath.Join(d.project, "data", dataset, name), b); err != nil {
					return nil, err
				}
			}
		}
		return out, nil
	})
}

// pipeline runs a pipeline as layla under a key: the server gives the run that has it, or a new one. One that an earlier
// call saw fail is started again.
func (d *play) pipeline(ctx context.Context, key string, body map[string]any, sources func() (map[string][]pipeline.SourceFile, error)) (r api.PipelineRun, err error) {
	if sources != nil {
		if body["sources"], err = sources(); err != nil {
			return r, err
		}
	}
	for try := 1; ; try++ {
		if body["key"] = key; try > 1 {
			body["key"] = key + "-" + strconv.Itoa(try)
		}
		if err := d.layla.call(ctx, "POST", in(demoProject, "pipelines", "runs"), body, &r); err != nil {
			return r, err
		}
		if r.State != "failed" && r.State != "cancelled" {
			return d.ran(ctx, r.ID)
		}
	}
}

// ran waits for a run and gives its failure as an error.
func (d *play) ran(ctx context.Context, id string) (api.PipelineRun, error) {
	for {
		var r api.PipelineRun
		if err := d.layla.call(ctx, "GET", in(demoProject, "pipelines", "runs", id), nil, &r); err != nil {
			return r, err
		}
		switch {
		case r.State == "done":
			return r, nil
		case r.State != "waiting" && r.State != "running":
			if r.Error != nil {
				return r, fault.New(fault.Kind(r.Error.Code), r.Error.Detail, first(r.Error.Next, d.page("pipelines/"+id)))
			}
			return r, fault.New(fault.Conflict, "Pipeline run "+id+" is "+r.State+".", d.page("pipelines/"+id))
		}
		for _, s := range r.StepList {
			if s.State == "running" && s.DurationMS != nil {
				d.env.progress(fmt.Sprintf("%s  %.0f s  %s", s.Name, *s.DurationMS/1000, lastLine(s.LogTail)))
			}
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// madeOf is the model version that a run registered.
func madeOf(r api.PipelineRun) int64 {
	for _, s := range r.StepList {
		for _, o := range s.Outputs {
			if o.Kind == "model_version" && o.ID == demoModel && o.Version != nil && s.Kind == "register" {
				return *o.Version
			}
		}
	}
	return 0
}

// refused is the damaged April, with its first rows.
func (d *play) refused(ctx context.Context) (q api.QuarantineBatch, rows api.QuarantineRows, err error) {
	var list api.Page[api.QuarantineBatch]
	if err := d.layla.call(ctx, "GET", in(demoProject, "datasets", "flights", "quarantine"), nil, &list); err != nil {
		return q, rows, err
	}
	i := slices.IndexFunc(list.Items, func(b api.QuarantineBatch) bool {
		return b.Scope == "refused" && strings.HasSuffix(b.Source, "2013-04.csv")
	})
	if i < 0 {
		return q, rows, fault.New(fault.Internal, "The damaged April was not refused.", d.page("data/flights"))
	}
	q = list.Items[i]
	err = d.layla.call(ctx, "GET", in(demoProject, "datasets", "flights", "quarantine", q.ID, "rows")+"?limit=5", nil, &rows)
	if err == nil && (len(rows.Items) == 0 || len(rows.Items[0].Violations) == 0) {
		err = fault.New(fault.Internal, "The refused rows of April cannot be looked at.", d.page("data/flights/quarantine/"+q.ID))
	}
	return q, rows, err
}

// train makes delay@1, and shows that the same again costs nothing (chapters 5 and 6).
func (d *play) train(ctx context.Context) error {
	until := date(time.April, 1)
	r, err := d.pipeline(ctx, "demo-train", map[string]any{"model": demoModel, "until": until.UnixMicro()}, nil)
	if err != nil {
		return err
	}
	v, err := d.version(ctx, madeOf(r))
	if err != nil {
		return err
	}
	d.tell(5, "models/"+demoModel, map[string]any{"version": v.Version, "rows": v.Metrics["rows"], "test_auc": v.Metrics["test_auc"]},
		"layla trains on what was known on 1 April: %s@%d, %s flights, test_auc %s", demoModel, v.Version, count(v.Metrics["rows"]), figure(v.Metrics["test_auc"]))
	again, err := d.pipeline(ctx, "demo-train-again", map[string]any{"model": demoModel, "until": until.UnixMicro()}, nil)
	if err != nil {
		return err
	}
	reason := ""
	for _, s := range again.StepList {
		if s.Kind == "train" && s.Cache != nil {
			reason = s.Cache.Reason.Text
		}
	}
	d.tell(6, "pipelines/"+again.ID, map[string]any{"steps": again.Steps.Total, "cached": again.Steps.Cached}, "the same again: %d of %d steps are cached (training: %s)", again.Steps.Cached, again.Steps.Total, reason)
	return nil
}

func (d *play) version(ctx context.Context, n int64) (api.ModelVersion, error) {
	var m api.ModelDetail
	if err := d.layla.call(ctx, "GET", in(demoProject, "models", demoModel), nil, &m); err != nil {
		return api.ModelVersion{}, err
	}
	for _, v := range m.VersionList {
		if v.Version == n {
			return v, nil
		}
	}
	return api.ModelVersion{}, fault.Newf(fault.Internal, "The run registered no version of %s.", demoModel)
}

func figure(f *float64) string {
	if f == nil {
		return "unknown"
	}
	return fmt.Sprintf("%.3f", *f)
}

func count(f *float64) string {
	if f == nil {
		return "?"
	}
	return thousands(int64(*f))
}

// change asks for a promotion under a key and waits until its gates are decided.
func (d *play) change(ctx context.Context, key string, version int64, environment, reason string) (api.ChangeDetail, error) {
	var c api.ChangeDetail
	body := map[string]any{"model": demoModel, "version": version, "environment": environment, "reason": reason, "key": key}
	if err := d.layla.call(ctx, "POST", in(demoProject, "changes"), body, &c); err != nil {
		return c, err
	}
	d.told["change "+c.ID] = true
	return d.decided(ctx, c.ID)
}

// decided waits while the machinery works on a change.
func (d *play) decided(ctx context.Context, id string) (api.ChangeDetail, error) {
	for {
		var c api.ChangeDetail
		if err := d.layla.call(ctx, "GET", in(demoProject, "changes", id), nil, &c); err != nil {
			return c, err
		}
		switch c.State {
		case "assessing", "approved", "implementing":
		default:
			return c, nil
		}
		d.env.progress(fmt.Sprintf("change %s: %s, %d gates decided", id, c.State, len(c.Evidence)))
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// gates tells the evidence in one phrase each; only what did not pass when failed is set.
func gates(c api.ChangeDetail, failed bool) string {
	var out []string
	for _, e := range c.Evidence {
		if failed == (e.Verdict == delivery.Passed) {
			continue
		}
		text := e.Gate
		if e.Note != nil {
			text += ": " + e.Note.Text
		}
		for _, t := range e.Tests {
			if t.Verdict != delivery.Passed {
				text = fmt.Sprintf("%s test '%s' failed (%s)", t.Suite, t.Name, strings.TrimSpace(t.Message))
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// mustBe refuses to go on when a change took another course than the story.
func (d *play) mustBe(c api.ChangeDetail, states ...string) error {
	if slices.Contains(states, c.State) {
		return nil
	}
	return fault.Newf(fault.Conflict, "The change of %s@%d in %s is %s, the story expects %s: %s.", c.Model, c.ToVersion, c.Environment, c.State, strings.Join(states, " or "), gates(c, true))
}

func changeFacts(c api.ChangeDetail) map[string]any {
	passed := map[string]int{}
	for _, e := range c.Evidence {
		for _, t := range e.Tests {
			if t.Verdict == delivery.Passed {
				passed[t.Suite]++
			}
		}
	}
	return map[string]any{"change": c.ID, "version": c.ToVersion, "state": c.State, "environment": c.Environment, "passed": gates(c, false), "failed": gates(c, true), "tests": passed}
}

// first takes delay@1 to production, past a model that must not come there and a person who may not approve (7 to 10).
func (d *play) first(ctx context.Context) error {
	until := date(time.April, 1)
	if err := d.clock(ctx, until); err != nil { // the changes happen on this day of the story
		return err
	}
	c, err := d.change(ctx, "demo-staging-1", 1, "staging", "the first model")
	if err != nil {
		return err
	}
	if err := d.mustBe(c, "closed"); err != nil {
		return err
	}
	one := between(d.flights, until, until.Add(3*time.Hour))[:1]
	if err := d.predict(ctx, "staging", "staging-hello", one); err != nil {
		return err
	}
	d.tell(7, "changes/"+c.ID, changeFacts(c), "%s@1 goes to staging: %s", demoModel, gates(c, false))

	r, err := d.pipeline(ctx, "demo-train-hours", map[string]any{"model": demoModel, "until": until.UnixMicro(), "params": map[string]string{"delays_in": "hours"}}, nil)
	if err != nil {
		return err
	}
	tidy, err := d.version(ctx, madeOf(r))
	if err != nil {
		return err
	}
	if c, err = d.change(ctx, "demo-staging-hours", tidy.Version, "staging", "delays in hours are tidier"); err != nil {
		return err
	}
	if err := d.mustBe(c, "refused"); err != nil {
		return err
	}
	facts := changeFacts(c)
	facts["test_auc"] = tidy.Metrics["test_auc"]
	d.tell(8, "changes/"+c.ID, facts, "%s@%d takes delays in hours, test_auc %s like its sister: refused before staging: %s", demoModel, tidy.Version, figure(tidy.Metrics["test_auc"]), gates(c, true))
	return d.approval(ctx)
}

func (d *play) approval(ctx context.Context) error {
	c, err := d.change(ctx, "demo-production-1", 1, "production", "the first model")
	if err != nil {
		return err
	}
	if c.State == "pending_approval" {
		err := d.layla.call(ctx, "POST", in(demoProject, "changes", c.ID, "approve"), map[string]string{"comment": "looks good to me"}, nil)
		if !fault.Is(err, fault.Denied) {
			return fault.Newf(fault.Internal, "layla was not kept from approving her own change %s (%v).", c.ID, err)
		}
		d.tell(9, "audit", map[string]any{"denied": err.Error()}, "layla asks for production and approves it herself: denied and recorded. %s", err.Error())
		if c, err = d.approve(ctx, c.ID, "the evidence is complete"); err != nil {
			return err
		}
	} else {
		d.tell(9, "changes/"+c.ID, map[string]any{"denied": "before"}, "layla asked for production and could not approve it herself")
	}
	if err := d.mustBe(c, "closed"); err != nil {
		return err
	}
	d.tell(10, "changes/"+c.ID, changeFacts(c), "omar of ml-risk approves: %s@1 serves all of production", demoModel)
	return nil
}

// approve lets omar look at a change and approve it.
func (d *play) approve(ctx context.Context, id, comment string) (api.ChangeDetail, error) {
	var c api.ChangeDetail
	if err := d.omar.call(ctx, "GET", in(demoProject, "changes", id), nil, &c); err != nil {
		return c, err
	}
	if err := d.omar.call(ctx, "POST", in(demoProject, "changes", id, "approve"), map[string]string{"comment": comment}, nil); err != nil {
		return c, err
	}
	return d.decided(ctx, id)
}
