package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"falaj/internal/api"
)

func (e *env) statusCmd() *cobra.Command {
	return &cobra.Command{Use: "status [CHANGE|RUN|[PROJECT/]MODEL]", Short: "What is where: models, open changes, runs", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		ctx, cl := cmd.Context(), e.client()
		if len(args) == 0 {
			return e.overview(ctx, cl)
		}
		switch {
		case strings.HasPrefix(args[0], "chg_"):
			var d api.ChangeDetail
			if err := cl.call(ctx, "GET", in(e.projectName(), "changes", args[0]), nil, &d); err != nil {
				return err
			}
			return e.changeStatus(d)
		case strings.HasPrefix(args[0], "pr_"):
			var r api.PipelineRun
			if err := cl.call(ctx, "GET", in(e.projectName(), "pipelines", "runs", args[0]), nil, &r); err != nil {
				return err
			}
			for _, s := range r.StepList {
				e.say("%s", e.stepLine(s))
			}
			return e.showRun(r)
		}
		n, err := e.noun(args[0])
		if err != nil {
			return err
		}
		return e.modelStatus(ctx, cl, n)
	}}
}

func (e *env) changeStatus(d api.ChangeDetail) error {
	if e.json {
		return printJSON(e.out, d)
	}
	fmt.Fprintf(e.out, "%s  %s %s@%d in %s: %s\n", d.ID, d.Verb, d.Model, d.ToVersion, d.Environment, d.State)
	fmt.Fprintf(e.out, "asked for by %s:%s at %s\n", d.Requester.Kind, d.Requester.Name, when(d.CreatedAt))
	for _, ev := range d.Evidence {
		line := fmt.Sprintf("  %-7s %s", ev.Verdict, ev.Label.Text)
		if ev.Note != nil {
			line += ": " + ev.Note.Text
		}
		fmt.Fprintln(e.out, line)
		for _, t := range ev.Tests {
			if t.Verdict != "passed" {
				fmt.Fprintf(e.out, "          %s %s: %s\n", t.Suite, t.Name, t.Message)
			}
		}
	}
	for _, a := range d.Approvals {
		fmt.Fprintf(e.out, "  %s by %s:%s %s\n", a.Decision, a.Actor.Kind, a.Actor.Name, a.Comment)
	}
	if d.Note != nil {
		fmt.Fprintln(e.out, d.Note.Text)
	}
	if d.ApprovalNeeded != nil && d.State == "pending_approval" {
		fmt.Fprintf(e.out, "waits for a member of %s: falaj approve %s\n", d.ApprovalNeeded.Group, d.ID)
	}
	return nil
}

func (e *env) overview(ctx context.Context, cl *client) error {
	project := e.projectName()
	var models api.Page[api.ModelSummary]
	if err := cl.call(ctx, "GET", in(project, "models"), nil, &models); err != nil {
		return err
	}
	var changes api.Page[api.ChangeSummary]
	if err := cl.call(ctx, "GET", in(project, "changes")+"?limit=20", nil, &changes); err != nil {
		return err
	}
	var runs api.Page[api.PipelineRunSummary]
	if err := cl.call(ctx, "GET", in(project, "pipelines", "runs")+"?limit=5", nil, &runs); err != nil {
		return err
	}
	if e.json {
		return printJSON(e.out, map[string]any{"models": models.Items, "changes": changes.Items, "runs": runs.Items})
	}
	rows := [][]string{}
	for _, m := range models.Items {
		for _, env := range m.Environments {
			version := "-"
			if env.Version != nil {
				version = strconv.FormatInt(*env.Version, 10)
			}
			rows = append(rows, []string{m.Name, env.Environment, version, m.Health})
		}
	}
	if err := e.table([]string{"MODEL", "ENVIRONMENT", "VERSION", "HEALTH"}, rows); err != nil {
		return err
	}
	rows = [][]string{}
	for _, c := range changes.Items {
		rows = append(rows, []string{c.ID, c.Verb, fmt.Sprintf("%s@%d", c.Model, c.ToVersion), c.Environment, c.State, when(c.CreatedAt)})
	}
	fmt.Fprintln(e.out)
	if err := e.table([]string{"CHANGE", "VERB", "MODEL", "ENVIRONMENT", "STATE", "ASKED"}, rows); err != nil {
		return err
	}
	rows = [][]string{}
	for _, r := range runs.Items {
		rows = append(rows, []string{r.ID, r.Pipeline, r.Model, r.State, when(r.CreatedAt)})
	}
	fmt.Fprintln(e.out)
	return e.table([]string{"RUN", "PIPELINE", "MODEL", "STATE", "STARTED"}, rows)
}

func (e *env) modelStatus(ctx context.Context, cl *client, n noun) error {
	var m api.ModelDetail
	if err := cl.call(ctx, "GET", in(n.project, "models", n.model), nil, &m); err != nil {
		return err
	}
	if e.json {
		return printJSON(e.out, m)
	}
	fmt.Fprintf(e.out, "%s/%s is %s\n", n.project, n.model, m.Health)
	rows := [][]string{}
	for _, t := range m.Timeline {
		from, to := "-", "-"
		if t.From != nil {
			from = strconv.FormatInt(*t.From, 10)
		}
		if t.To != nil {
			to = strconv.FormatInt(*t.To, 10)
		}
		at := t.At
		if t.EventAt != nil {
			at = *t.EventAt
		}
		rows = append(rows, []string{when(at), t.Environment, t.Kind, from, to, t.Actor.Kind + ":" + t.Actor.Name, t.Reason.Text})
	}
	return e.table([]string{"EVENT TIME", "ENVIRONMENT", "WHAT", "FROM", "TO", "WHO", "WHY"}, rows)
}
