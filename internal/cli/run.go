package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"falaj/internal/api"
	"falaj/internal/kernel/fault"
)

func (e *env) runCmd() *cobra.Command {
	var file, until, resume string
	var params []string
	var noCache, ingest, detach bool
	c := &cobra.Command{
		Use:   "run [MODEL]",
		Short: "Ingest, derive, make features, train and register: only what changed",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			f, err := openFolder(file, true)
			if err != nil {
				return err
			}
			defer f.close()
			cl := e.client()
			body := map[string]any{"no_cache": noCache, "resumes": resume}
			if body["sources"], err = f.upload(ctx, cl, func(name string) { e.progress("uploading " + name) }); err != nil {
				return err
			}
			if ingest {
				body["pipeline"] = "ingest"
			}
			if len(args) == 1 {
				body["model"] = args[0]
			}
			if body["params"], err = pairs(params); err != nil {
				return err
			}
			if until != "" {
				t, err := parseTime(until)
				if err != nil {
					return err
				}
				body["until"] = t.UnixMicro()
			}
			return e.startAndFollow(ctx, cl, f.project.Name, body, detach)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&file, "file", "f", "falaj.yaml", "the project file")
	fl.StringArrayVar(&params, "param", nil, "NAME=VALUE over the file's parameters")
	fl.StringVar(&until, "until", "", "train only on what was known by then (2013-04-01 or RFC 3339)")
	fl.BoolVar(&noCache, "no-cache", false, "run every step")
	fl.BoolVar(&ingest, "ingest", false, "only ingest, derive and materialize")
	fl.StringVar(&resume, "resume", "", "take up this failed run: its finished steps are cached")
	fl.BoolVar(&detach, "detach", false, "do not wait")
	return c
}

func (e *env) retrainCmd() *cobra.Command {
	var history int
	var until string
	var params []string
	var detach bool
	c := &cobra.Command{
		Use:   "retrain [PROJECT/]MODEL",
		Short: "Train on what was known before the newest labelled window, then challenge the champion on it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := e.noun(args[0])
			if err != nil {
				return err
			}
			p, err := pairs(params)
			if err != nil {
				return err
			}
			body := map[string]any{"pipeline": "retrain", "model": n.model, "history_days": history, "params": p}
			if until != "" {
				t, err := parseTime(until)
				if err != nil {
					return err
				}
				body["until"] = t.UnixMicro()
			}
			return e.startAndFollow(cmd.Context(), e.client(), n.project, body, detach)
		},
	}
	c.Flags().IntVar(&history, "history-days", 0, "train on the newest days only; 0: on all")
	c.Flags().StringVar(&until, "until", "", "train only on what was known by then")
	c.Flags().StringArrayVar(&params, "param", nil, "NAME=VALUE over the file's parameters")
	c.Flags().BoolVar(&detach, "detach", false, "do not wait")
	return c
}

func pairs(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, fault.New(fault.Invalid, "'"+s+"' is not a parameter.", "Write --param NAME=VALUE.")
		}
		out[k] = v
	}
	return out, nil
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fault.New(fault.Invalid, "'"+s+"' is not a time.", "Write 2013-04-01 or 2013-04-01T12:00:00Z.")
}

func (e *env) startAndFollow(ctx context.Context, c *client, project string, body map[string]any, detach bool) error {
	var r api.PipelineRun
	if err := c.call(ctx, "POST", in(project, "pipelines", "runs"), body, &r); err != nil {
		return err
	}
	if !detach {
		var err error
		if r, err = e.followRun(ctx, c, project, r.ID); err != nil {
			return err
		}
	}
	return e.showRun(r)
}

// followRun tells each step as it ends, with the reason of its cache verdict, and returns when the run has ended.
func (e *env) followRun(ctx context.Context, c *client, project, id string) (api.PipelineRun, error) {
	told := map[string]bool{}
	for {
		var r api.PipelineRun
		if err := c.call(ctx, "GET", in(project, "pipelines", "runs", id), nil, &r); err != nil {
			return r, err
		}
		for _, s := range r.StepList {
			if s.State == "running" || told[s.Name] {
				continue
			}
			told[s.Name] = true
			e.say("%s", e.stepLine(s))
		}
		switch r.State {
		case "waiting", "running":
		default:
			return r, nil
		}
		for _, s := range r.StepList {
			if s.State == "running" && s.DurationMS != nil {
				e.progress(fmt.Sprintf("%s  %.0f s  %s", s.Name, *s.DurationMS/1000, lastLine(s.LogTail)))
			}
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	last := lines[len(lines)-1]
	if len(last) > 80 {
		last = last[:80]
	}
	return last
}

func (e *env) stepLine(s api.PipelineStep) string {
	mark := map[string]string{"done": e.paint(green, "done  "), "cached": e.paint(blue, "cached"), "failed": e.paint(red, "failed")}[s.State]
	line := fmt.Sprintf("  %s  %-24s", mark, s.Name)
	if s.DurationMS != nil {
		line += fmt.Sprintf(" %6.1f s", *s.DurationMS/1000)
	}
	if s.Cache != nil {
		line += "  " + s.Cache.Reason.Text
	}
	if s.Error != nil {
		line += "  " + s.Error.Detail
	}
	return line
}

func (e *env) showRun(r api.PipelineRun) error {
	if e.json {
		if err := printJSON(e.out, r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.out, "%s\t%s\t%s\t%d steps, %d cached\n", r.ID, r.Pipeline, r.State, r.Steps.Total, r.Steps.Cached)
		for _, s := range r.StepList {
			for _, o := range s.Outputs {
				if o.Kind == "model_version" && o.Version != nil && s.Kind == "register" {
					fmt.Fprintf(e.out, "%s@%d\n", o.ID, *o.Version)
				}
			}
		}
	}
	for _, s := range r.StepList {
		if s.Cache != nil && s.Cache.Reason.Code == "data.refused" {
			return fault.New(fault.Refused, s.Cache.Reason.Text, "falaj logs "+r.ID+" tells more; the page of the dataset shows the rows.")
		}
	}
	if r.State == "failed" && r.Error != nil {
		return fault.New(fault.Kind(r.Error.Code), r.Error.Detail, r.Error.Next)
	}
	return nil
}

// progress is one line that is overwritten on a terminal; piped, it says nothing.
func (e *env) progress(s string) {
	if isTerminal(e.err) {
		if len(s) > 110 {
			s = s[:110]
		}
		fmt.Fprintf(e.err, "\r\x1b[2K  %s", s)
	}
}

func (e *env) logsCmd() *cobra.Command {
	var follow bool
	c := &cobra.Command{Use: "logs RUN [STEP]", Short: "Print the log of a pipeline run's steps", Args: cobra.RangeArgs(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		ctx, cl := cmd.Context(), e.client()
		said := map[string]string{} // by step, what was printed of its log
		ended := map[string]bool{}
		for {
			var r api.PipelineRun
			if err := cl.call(ctx, "GET", in(e.projectName(), "pipelines", "runs", args[0]), nil, &r); err != nil {
				return err
			}
			over := r.State != "waiting" && r.State != "running"
			for _, s := range r.StepList {
				if len(args) == 2 && s.Name != args[1] || ended[s.Name] {
					continue
				}
				if _, met := said[s.Name]; !met {
					fmt.Fprintln(e.out, e.stepLine(s))
				}
				fmt.Fprint(e.out, unsaid(said[s.Name], s.LogTail))
				said[s.Name], ended[s.Name] = s.LogTail, s.State != "running" && s.State != "waiting"
				if ended[s.Name] && s.Error != nil {
					e.say("%s failed: %s", s.Name, s.Error.Detail)
				}
			}
			switch {
			case len(said) == 0 && len(args) == 2 && (over || !follow):
				return fault.New(fault.NotFound, "Run "+args[0]+" has no step '"+args[1]+"'.", "falaj logs "+args[0]+" lists them.")
			case over || !follow:
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(500 * time.Millisecond):
			}
		}
	}}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the run has ended")
	return c
}

// unsaid is what a log's tail has beyond what was said of it. A tail that moved on is joined at the last line said.
func unsaid(said, tail string) string {
	if rest, ok := strings.CutPrefix(tail, said); ok {
		return rest
	}
	last := said[strings.LastIndexByte(strings.TrimSuffix(said, "\n"), '\n')+1:]
	if i := strings.LastIndex(tail, last); i >= 0 {
		return tail[i+len(last):]
	}
	return tail
}
