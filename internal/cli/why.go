package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"falaj/internal/api"
)

func (e *env) whyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "why [PROJECT/]MODEL[@VERSION|@ENVIRONMENT] [ENVIRONMENT] | PREDICTION",
		Short: "Why a model version is where it is, down to the data; or why a prediction was what it was",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if strings.HasPrefix(args[0], "prd_") || strings.HasPrefix(args[0], "req_") {
				path = in(e.projectName(), "predictions", args[0], "why")
			} else {
				name, env := args[0], ""
				if base, at, ok := strings.Cut(name, "@"); ok && !isNumber(at) { // model@environment
					name, env = base, at
				}
				n, err := e.noun(name)
				if err != nil {
					return err
				}
				if len(args) == 2 {
					env = args[1]
				}
				version := ""
				if n.version != 0 {
					version = strconv.FormatInt(n.version, 10)
				}
				path = in(n.project, "models", n.model, "why") + query("version", version, "environment", env)
			}
			var b api.Because
			if err := e.client().call(cmd.Context(), "GET", path, nil, &b); err != nil {
				return err
			}
			if e.json {
				return printJSON(e.out, b)
			}
			fmt.Fprintln(e.out, e.paint(bold, b.Subject))
			for _, s := range b.Sections {
				fmt.Fprintln(e.out, s.Title)
				for _, r := range s.Reasons {
					line := "  " + r.Text
					if r.Digest != "" && !strings.Contains(r.Text, r.Digest) {
						line += "  " + short(r.Digest)
					}
					fmt.Fprintln(e.out, line)
				}
			}
			return nil
		},
	}
}

func isNumber(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil
}
