package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"falaj/internal/api"
	"falaj/internal/kernel/fault"
)

// noun is [project/]model[@version].
type noun struct {
	project string
	model   string
	version int64 // 0: none given
}

func (e *env) noun(s string) (noun, error) {
	n := noun{project: e.projectName()}
	rest := s
	if p, m, ok := strings.Cut(s, "/"); ok {
		n.project, rest = p, m
	}
	model, version, ok := strings.Cut(rest, "@")
	n.model = model
	if ok {
		v, err := strconv.ParseInt(version, 10, 64)
		if err != nil || v < 1 {
			return n, fault.New(fault.Invalid, "'"+s+"' does not name a version.", "Write [project/]model@number, for example flights/delay@3.")
		}
		n.version = v
	}
	if model == "" {
		return n, fault.New(fault.Invalid, "'"+s+"' does not name a model.", "Write [project/]model@number, for example flights/delay@3.")
	}
	return n, nil
}

func (e *env) promoteCmd() *cobra.Command {
	var reason string
	var wait bool
	c := &cobra.Command{
		Use:   "promote [PROJECT/]MODEL@VERSION ENVIRONMENT",
		Short: "Ask for a version in an environment: gates, approval, roll-out",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := e.noun(args[0])
			if err != nil {
				return err
			}
			if n.version == 0 {
				return fault.New(fault.Invalid, "Which version of "+n.model+"?", "falaj promote "+args[0]+"@NUMBER "+args[1])
			}
			var d api.ChangeDetail
			body := map[string]any{"model": n.model, "version": n.version, "environment": args[1], "reason": reason}
			cl := e.client()
			if err := cl.call(cmd.Context(), "POST", in(n.project, "changes"), body, &d); err != nil {
				return err
			}
			if wait {
				if d, err = e.follow(cmd.Context(), cl, n.project, d.ID); err != nil {
					return err
				}
			}
			return e.showChange(n.project, d)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, kept with the change")
	c.Flags().BoolVar(&wait, "wait", true, "wait until the gates are decided")
	return c
}

// follow tells each gate as it is decided and returns when the change waits for a person or is final.
func (e *env) follow(ctx context.Context, cl *client, project, id string) (api.ChangeDetail, error) {
	seen := 0
	for {
		var d api.ChangeDetail
		if err := cl.call(ctx, "GET", in(project, "changes", id), nil, &d); err != nil {
			return d, err
		}
		for ; seen < len(d.Evidence); seen++ {
			ev := d.Evidence[seen]
			mark := e.paint(green, "passed")
			if ev.Verdict != "passed" {
				mark = e.paint(red, string(ev.Verdict))
			}
			line := fmt.Sprintf("  %s  %s", mark, ev.Label.Text)
			if ev.Note != nil {
				line += ": " + ev.Note.Text
			}
			e.say("%s", line)
		}
		switch d.State {
		case "assessing", "approved", "implementing":
		default:
			return d, nil
		}
		select {
		case <-ctx.Done():
			return d, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (e *env) showChange(project string, d api.ChangeDetail) error {
	if e.json {
		if err := printJSON(e.out, d); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.out, "%s\t%s %s@%d %s\t%s\n", d.ID, d.Verb, d.Model, d.ToVersion, d.Environment, d.State)
	}
	why := ""
	if d.Note != nil {
		why = d.Note.Text
	}
	switch d.State {
	case "refused", "rejected", "failed":
		return fault.New(fault.Refused, fmt.Sprintf("%s@%d is %s in %s: %s.", d.Model, d.ToVersion, d.State, d.Environment, why), "The evidence: falaj status "+project+"/"+d.Model)
	case "pending_approval":
		group := "an approver"
		if d.ApprovalNeeded != nil && d.ApprovalNeeded.Group != "" {
			group = "a member of " + d.ApprovalNeeded.Group
		}
		e.say("Waits for %s: falaj approve %s --project %s", group, d.ID, project)
		return exitCode(fault.Pending.Exit())
	}
	return nil
}

func (e *env) approveCmd() *cobra.Command { return e.decision("approve", "Approve a change") }
func (e *env) rejectCmd() *cobra.Command  { return e.decision("reject", "Reject a change") }

func (e *env) decision(verb, short string) *cobra.Command {
	var comment string
	c := &cobra.Command{Use: verb + " CHANGE", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		var d api.ChangeDetail
		project := e.projectName()
		cl := e.client()
		if err := cl.call(cmd.Context(), "POST", in(project, "changes", args[0], verb), map[string]string{"comment": comment}, &d); err != nil {
			return err
		}
		if verb == "approve" {
			var err error
			if d, err = e.follow(cmd.Context(), cl, project, d.ID); err != nil {
				return err
			}
		} else if d.State == "rejected" {
			e.say("%s is rejected.", d.ID)
			return nil
		}
		return e.showChange(project, d)
	}}
	c.Flags().StringVar(&comment, "comment", "", "kept with the decision")
	return c
}

func (e *env) rollbackCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "rollback [PROJECT/]MODEL[@VERSION] ENVIRONMENT",
		Short: "Put an earlier release back at once (default: the one before)",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := e.noun(args[0])
			if err != nil {
				return err
			}
			var d api.ChangeDetail
			body := map[string]any{"model": n.model, "environment": args[1], "to_version": n.version, "reason": reason}
			if err := e.client().call(cmd.Context(), "POST", in(n.project, "rollback"), body, &d); err != nil {
				return err
			}
			e.say("%s@%d serves %s again.", d.Model, d.ToVersion, d.Environment)
			return e.showChange(n.project, d)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, kept with the change")
	return c
}

func (e *env) policyCmd() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Who may do what, and why"}
	var principal string
	whyC := &cobra.Command{
		Use:   "why ACTION RESOURCE",
		Short: "Explain a decision: falaj policy why change.approve Change::flights/chg_...",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var w api.Why
			q := url.Values{"action": {args[0]}, "resource": {args[1]}, "principal": {principal}}
			if err := e.client().call(cmd.Context(), "GET", "/policy/why?"+q.Encode(), nil, &w); err != nil {
				return err
			}
			if e.json {
				return printJSON(e.out, w)
			}
			verdict := "may"
			if !w.Allow {
				verdict = "may NOT"
			}
			fmt.Fprintf(e.out, "%s %s %s on %s\n", w.Principal, verdict, w.Action, w.Resource)
			for _, r := range w.Reasons {
				fmt.Fprintf(e.out, "  %s: %s\n", r.Policy, r.Text)
			}
			if !w.Allow && len(w.Reasons) == 0 {
				fmt.Fprintf(e.out, "  no permit matches (default deny)\n")
			}
			for _, r := range w.Missing {
				fmt.Fprintf(e.out, "  the role %s would allow it\n", r)
			}
			return nil
		},
	}
	whyC.Flags().StringVar(&principal, "as", "", "principal, such as user:amal (default: you)")
	c.AddCommand(whyC)
	return c
}

func (e *env) auditCmd() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "The record and its proof"}
	var quick bool
	v := &cobra.Command{
		Use:   "verify",
		Short: "Recompute the chain of the ledger, the events and every stored byte",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r api.AuditVerification
			if err := e.client().call(cmd.Context(), "GET", "/audit/verify?deep="+strconv.FormatBool(!quick), nil, &r); err != nil {
				return err
			}
			if e.json {
				if err := printJSON(e.out, r); err != nil {
					return err
				}
			} else if r.OK {
				fmt.Fprintf(e.out, "clean: %d entries, %d events, %d blobs; head %d %s (%.0f ms)\n", r.Entries, r.Events, r.Blobs, r.HeadSeq, short(r.HeadHash), r.TookMS)
			} else {
				for _, b := range r.All {
					fmt.Fprintf(e.out, "BROKEN %s\n", b.Note.Text)
				}
			}
			if !r.OK {
				return fault.New(fault.Refused, fmt.Sprintf("The record is broken in %d places.", len(r.All)), "Keep the data directory as it is and compare with the newest backup.")
			}
			return nil
		},
	}
	v.Flags().BoolVar(&quick, "quick", false, "do not read the blobs")
	c.AddCommand(v)
	return c
}
