package tracking_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"falaj/internal/kernel/fault"
	"falaj/internal/tracking"
)

func TestSearchRuns(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		nan := math.NaN()
		seed := []struct {
			name  string
			auc   *float64
			lr    string
			tag   string
			start int64
			data  string
		}{
			{"a", ptr(0.7), "0.1", "prod", 100, "flights"}, {"b", ptr(0.9), "0.01", "Prod", 300, ""}, {"c", &nan, "0.1", "", 200, "weather"},
			{"d", nil, "", "100% done", 400, ""}, {"e", ptr(math.Inf(1)), "0.5", "a_b", 50, ""},
		}
		var exp int64
		for _, x := range seed {
			r := run(t, ctx, s, 0, x.name, x.start)
			exp = r.Experiment
			b := tracking.Batch{}
			if x.auc != nil {
				b.Metrics = []tracking.Metric{{Key: "val auc", Value: *x.auc, TimestampMs: 1}}
			}
			if x.lr != "" {
				b.Params = []tracking.Pair{{Key: "lr", Value: x.lr}}
			}
			if x.tag != "" {
				b.Tags = []tracking.Pair{{Key: "stage", Value: x.tag}}
			}
			if err := s.LogBatch(ctx, "flights", r.ID, b); err != nil {
				t.Fatal(err)
			}
			if x.data != "" {
				if err := s.LogInputs(ctx, "flights", r.ID, []tracking.DatasetInput{{Dataset: tracking.Dataset{Name: x.data, Digest: "d1", SourceType: "local", Source: "{}"},
					Tags: []tracking.Pair{{Key: tracking.TagContext, Value: "train"}}}}, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		cases := []struct {
			filter string
			order  []string
			want   string
		}{
			{"", nil, "dbcae"},
			{"metrics.`val auc` > 0.6", nil, "bae"},
			{"metrics.`val auc` != 0.7", nil, "bce"},
			{"metrics.`val auc` >= 0.7 AND params.lr = '0.1'", nil, "a"},
			{"metrics.never > 0", nil, ""},
			{"params.lr != '0.1'", nil, "be"},
			{"params.lr IS NULL", nil, "d"},
			{"tags.stage IS NOT NULL AND tags.stage != 'prod'", nil, "dbe"},
			{"tags.stage = 'prod'", nil, "a"},
			{"tags.stage LIKE 'prod'", nil, "a"},
			{"tags.stage LIKE 'Pr%'", nil, "b"},
			{"tags.stage LIKE '%od'", nil, "ba"},
			{"tags.stage LIKE '%RO%'", nil, ""},
			{"tags.stage ILIKE '%RO%'", nil, "ba"},
			{"tags.stage LIKE 'a_b'", nil, "e"},
			{"tags.stage LIKE '100%done'", nil, "d"},
			{"attributes.run_name IN ('a', 'b')", nil, "!Only ['run_id']"},
			{"run_name = 'a'", nil, "a"},
			{"status = 'RUNNING' AND start_time > 100.5 AND start_time <= 300", nil, "bc"},
			{"dataset.name = 'flights'", nil, "a"},
			{"datasets.context = 'train' AND dataset.digest IN ('d1', 'x')", nil, "ca"},
			{"", []string{"metrics.`val auc` DESC"}, "ebacd"},
			{"", []string{"metrics.`val auc`"}, "abecd"},
			{"", []string{"params.lr", "attributes.start_time ASC"}, "baced"}, // 0.01; 0.1 by start; 0.5; none
			{"", []string{"tags.stage DESC"}, "aebdc"},                        // 'prod' 'a_b' 'Prod' '100% done' none: by bytes
			{"", []string{"run_name DESC"}, "edcba"},
			{"end_time > 5", nil, ""},
		}
		for _, c := range cases {
			page, err := s.SearchRuns(ctx, "flights", tracking.Search{Experiments: []int64{exp}, Filter: c.filter, OrderBy: c.order, View: tracking.ActiveOnly})
			if text, bad := strings.CutPrefix(c.want, "!"); bad {
				refused(t, err, fault.Invalid, text)
				continue
			}
			if err != nil {
				t.Errorf("%q %v: %v", c.filter, c.order, err)
				continue
			}
			got := ""
			for _, r := range page.Items {
				got += r.Name
			}
			if got != c.want {
				t.Errorf("%q %v: got %s, want %s", c.filter, c.order, got, c.want)
			}
			// The same by pages of two.
			paged, token := "", ""
			for range 10 {
				p := mustOne[tracking.Page[tracking.Run]](t)(s.SearchRuns(ctx, "flights", tracking.Search{Experiments: []int64{exp}, Filter: c.filter, OrderBy: c.order, View: tracking.ActiveOnly, Max: 2, Token: token}))
				for _, r := range p.Items {
					paged += r.Name
				}
				if token = p.Next; token == "" {
					break
				}
			}
			if paged != got {
				t.Errorf("%q %v: pages give %s, one page %s", c.filter, c.order, paged, got)
			}
		}
		for _, token := range []string{"%%%", "bm8=", "eyJvZmZzZXQiOjB9"} {
			_, err := s.SearchRuns(ctx, "flights", tracking.Search{Experiments: []int64{exp}, Token: token})
			refused(t, err, fault.Invalid, "Invalid page token")
		}
		page := mustOne[tracking.Page[tracking.Run]](t)(s.SearchRuns(ctx, "flights", tracking.Search{Experiments: []int64{exp}, Filter: "run_name = 'a'"}))
		want := []tracking.DatasetInput{{Dataset: tracking.Dataset{Name: "flights", Digest: "d1", SourceType: "local", Source: "{}"}, Tags: []tracking.Pair{{Key: tracking.TagContext, Value: "train"}}}}
		if d := cmp.Diff(want, page.Items[0].Datasets); d != "" {
			t.Error(d)
		}
	})
}

func ptr[T any](v T) *T { return &v }

func TestLoggedModels(t *testing.T) {
	each(t, func(t *testing.T, ctx context.Context, s *tracking.Service) {
		r := run(t, ctx, s, 0, "r", 1)
		var ids []string
		for i := range 3 {
			m := mustOne[tracking.LoggedModel](t)(s.CreateModel(ctx, "flights", tracking.NewLoggedModel{Experiment: r.Experiment, Name: fmt.Sprintf("m%d", i), SourceRun: r.ID, Params: []tracking.Pair{{Key: "trees", Value: fmt.Sprint(i)}}}))
			if m.Status != tracking.ModelPending || !strings.HasSuffix(m.ArtifactURI, "/models/"+m.ID+"/artifacts") {
				t.Errorf("made %+v", m)
			}
			ids = append(ids, m.ID)
			if err := s.LogBatch(ctx, "flights", r.ID, tracking.Batch{Metrics: []tracking.Metric{{Key: "auc", Value: float64(i) / 10, TimestampMs: 5, Model: m.ID, DatasetName: "d", DatasetDigest: "x"}}}); err != nil {
				t.Fatal(err)
			}
		}
		if m := mustOne[tracking.LoggedModel](t)(s.FinalizeModel(ctx, "flights", ids[0], tracking.ModelReady)); m.Status != tracking.ModelReady {
			t.Errorf("finalized %+v", m)
		}
		if _, err := s.SetModelTags(ctx, "flights", ids[1], []tracking.Pair{{Key: "k", Value: "v"}}); err != nil {
			t.Fatal(err)
		}
		search := func(q tracking.ModelSearch) string {
			t.Helper()
			q.Experiments = []int64{r.Experiment}
			p := mustOne[tracking.Page[tracking.LoggedModel]](t)(s.SearchModels(ctx, "flights", q))
			got := ""
			for _, m := range p.Items {
				got += m.Name[1:]
			}
			return got
		}
		for _, c := range []struct {
			q    tracking.ModelSearch
			want string
		}{
			{tracking.ModelSearch{OrderBy: []tracking.ModelOrder{{Field: "name", Ascending: true}}}, "012"},
			{tracking.ModelSearch{OrderBy: []tracking.ModelOrder{{Field: "metrics.auc", Ascending: false}}}, "210"},
			{tracking.ModelSearch{Filter: "metrics.auc >= 0.1", OrderBy: []tracking.ModelOrder{{Field: "metrics.auc", Ascending: true, DatasetName: "d"}}}, "12"},
			{tracking.ModelSearch{Filter: "metrics.auc >= 0.1", Datasets: []tracking.Pair{{Key: "other"}}}, ""},
			{tracking.ModelSearch{Datasets: []tracking.Pair{{Key: "d", Value: "x"}}, Filter: "params.trees = '2'"}, "2"},
			{tracking.ModelSearch{Filter: "tags.k = 'v'"}, "1"},
			{tracking.ModelSearch{Filter: "name LIKE 'm%' AND creation_timestamp > 5 AND source_run_id = '" + r.ID + "' AND model_id = '" + ids[2] + "'"}, "2"},
		} {
			if got := search(c.q); got != c.want {
				t.Errorf("%+v: got %s, want %s", c.q, got, c.want)
			}
		}
		if err := s.DeleteModel(ctx, "flights", ids[1]); err != nil {
			t.Fatal(err)
		}
		_, err := s.Model(ctx, "flights", ids[1], false)
		refused(t, err, fault.NotFound, "Logged model with ID '"+ids[1]+"' not found.")
		refused(t, s.DeleteModelTag(ctx, "flights", ids[0], "none"), fault.NotFound, "No tag with key 'none' found for model with ID '"+ids[0]+"'.")
		_, err = s.CreateModel(ctx, "flights", tracking.NewLoggedModel{Name: "a/b"})
		refused(t, err, fault.Invalid, "Invalid model name ('a/b') provided.")
		if err := s.LogOutputs(ctx, "flights", r.ID, []tracking.ModelLink{{Model: ids[0], Step: 3}}); err != nil {
			t.Fatal(err)
		}
		if got := mustOne[tracking.Run](t)(s.Run(ctx, "flights", r.ID)).Outputs; len(got) != 1 || got[0].Step != 3 {
			t.Errorf("outputs %+v", got)
		}
	})
}
