package e2e

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// ledger counts the allowed rows of the project by action and the id of what was acted on.
type ledger map[string]map[string]int

func (w *world) ledger() ledger {
	w.t.Helper()
	out := ledger{}
	for after := int64(0); ; {
		var page struct {
			Items []struct {
				Action   string
				Resource struct{ ID string }
				Outcome  string
			}
			NextAfter *int64 `json:"next_after"`
		}
		w.get(fmt.Sprintf("%s/audit?limit=1000&after=%d", project, after), &page)
		for _, r := range page.Items {
			if r.Outcome != "allowed" {
				continue
			}
			if out[r.Action] == nil {
				out[r.Action] = map[string]int{}
			}
			out[r.Action][strings.TrimPrefix(r.Resource.ID, "tiny/")]++
		}
		if page.NextAfter == nil {
			return out
		}
		after = *page.NextAfter
	}
}

// once demands exactly one row.
func (l *load) once(rows ledger, action, id string) {
	l.t.Helper()
	if n := rows[action][id]; n != 1 {
		l.t.Errorf("%s of %s was acknowledged and has %d rows in the ledger", action, id, n)
	}
}

// check holds what is there against what was acknowledged: all of it is there, once, and every row of the ledger has its
// effect and every effect its row.
func (l *load) check() {
	l.t.Helper()
	l.clean()
	rows := l.ledger()
	l.checkRoles(rows)
	l.checkKeys(rows)
	for i := range l.metrics {
		l.metrics[i].check(rows)
	}
	for id := range rows["run.create"] {
		if a := l.call(l.amal.token, "GET", mlflow+"runs/get?run_id="+id, nil); a.status != 200 {
			l.t.Errorf("the ledger says that run %s was created: %d %s", id, a.status, a.body)
		}
	}
	l.checkMoves(rows)
	l.checkIngests(rows)
	l.checkAsks()
}

func (l *load) checkRoles(rows ledger) {
	var list struct {
		Items []struct{ Principal, Role string }
	}
	l.get(project+"/bindings", &list)
	there := map[string]bool{}
	for _, b := range list.Items {
		if strings.HasPrefix(b.Principal, "service:load-") {
			there[b.Principal] = true
			l.once(rows, "role.bind", b.Principal)
		}
	}
	for p, bound := range l.roles.bound {
		if there[p] != bound {
			l.t.Errorf("%s: bound %v, acknowledged was %v", p, there[p], bound)
		}
		l.once(rows, "role.bind", p)
		if !bound {
			l.once(rows, "role.unbind", p)
		}
	}
	for p := range rows["role.bind"] {
		if strings.HasPrefix(p, "service:load-") && !there[p] && rows["role.unbind"][p] != 1 {
			l.t.Errorf("the ledger says that %s was bound, and it is not", p)
		}
	}
}

func (l *load) checkKeys(rows ledger) {
	var list struct{ Items []struct{ ID string } }
	l.get(project+"/webhooks", &list)
	there := map[string]bool{}
	for _, h := range list.Items {
		there[h.ID] = true
		l.once(rows, "webhook.create", h.ID)
	}
	for id, live := range l.keys.hooks {
		if there[id] != live {
			l.t.Errorf("webhook %s: there %v, acknowledged was %v", id, there[id], live)
		}
		l.once(rows, "webhook.create", id)
		if !live {
			l.once(rows, "webhook.delete", id)
		}
	}
	for id := range rows["webhook.create"] {
		if !there[id] && rows["webhook.delete"][id] != 1 {
			l.t.Errorf("the ledger says that webhook %s was made, and it is not there", id)
		}
	}
	for id, k := range l.keys.tokens {
		want := 401
		if k.live {
			want = 200
		}
		if a := l.call(k.secret, "GET", project+"/webhooks", nil); a.status != want {
			l.t.Errorf("token %s: status %d, want %d", id, a.status, want)
		}
		l.once(rows, "session.create", id)
		if !k.live {
			l.once(rows, "session.delete", id)
		}
	}
}

func (m *metrics) check(rows ledger) {
	for _, r := range m.runs {
		m.once(rows, "run.create", r.id)
		var got struct {
			Run struct {
				Info struct{ Status string }
				Data struct{ Tags []struct{ Key, Value string } }
			}
		}
		m.get(mlflow+"runs/get?run_id="+r.id, &got)
		if r.ended && got.Run.Info.Status != "FINISHED" {
			m.t.Errorf("run %s is %s, its end was acknowledged", r.id, got.Run.Info.Status)
		}
		tags := map[string]string{}
		for _, t := range got.Run.Data.Tags {
			tags[t.Key] = t.Value
		}
		for k, v := range r.tags {
			if tags[k] != v {
				m.t.Errorf("run %s: tag %s was acknowledged and is %q", r.id, k, tags[k])
			}
		}
		for key, points := range r.points {
			var history struct {
				Metrics []struct {
					Step  int64
					Value float64
				}
			}
			m.get(mlflow+"metrics/get-history?run_id="+r.id+"&metric_key="+key, &history)
			seen := map[int64]float64{}
			for _, p := range history.Metrics {
				if _, twice := seen[p.Step]; twice {
					m.t.Errorf("run %s: step %d of %s is there twice", r.id, p.Step, key)
				}
				seen[p.Step] = p.Value
			}
			if !maps.Equal(seen, points) {
				m.t.Errorf("run %s: %d points of %s, acknowledged were %d", r.id, len(seen), key, len(points))
			}
		}
	}
}

func (l *load) checkMoves(rows ledger) {
	var m modelDetail
	l.get(project+"/models/breaks", &m)
	moved := map[string]int{}
	for _, p := range m.Timeline {
		if p.Change != nil && (p.Kind == "promote" || p.Kind == "rollback") {
			moved[*p.Change]++
		}
	}
	for action, list := range map[string][]string{"change.request": l.moves.promoted, "delivery.rollback": l.moves.back} {
		for _, id := range list {
			l.once(rows, action, id)
			if moved[id] != 1 {
				l.t.Errorf("change %s was acknowledged and moved the pointer %d times", id, moved[id])
			}
		}
		for id, n := range rows[action] {
			if a := l.call(l.amal.token, "GET", project+"/changes/"+id, nil); a.status != 200 || n != 1 {
				l.t.Errorf("the ledger says %d times %s of %s: %d %s", n, action, id, a.status, a.body)
			}
		}
	}
}

func (l *load) checkIngests(rows ledger) {
	for _, id := range l.ingests.runs {
		l.once(rows, "pipeline.run", id)
		var r struct {
			State string
			Steps []struct{ Name, State string } `json:"step_list"`
		}
		l.get(project+"/pipelines/runs/"+id, &r)
		steps := map[string]string{}
		for _, s := range r.Steps {
			if steps[s.Name] != "" || s.State != "done" && s.State != "cached" {
				l.t.Errorf("run %s: step %s is %s, and was %q", id, s.Name, s.State, steps[s.Name])
			}
			steps[s.Name] = s.State
		}
		if r.State != "done" || len(steps) == 0 {
			l.t.Errorf("run %s is %s with %d steps", id, r.State, len(steps))
		}
	}
	for id, n := range rows["pipeline.run"] {
		if a := l.call(l.amal.token, "GET", project+"/pipelines/runs/"+id, nil); a.status != 200 || n != 1 {
			l.t.Errorf("the ledger says %d times pipeline.run of %s: %d", n, id, a.status)
		}
	}
	var d struct {
		Latest   struct{ Rows, Version int64 }
		Versions []struct{ Rows int64 } `json:"version_list"`
	}
	l.get(project+"/datasets/readings", &d)
	if want := int64(600 + 10*len(l.ingests.runs)); d.Latest.Rows != want {
		l.t.Errorf("readings@%d has %d rows, ingested were %d", d.Latest.Version, d.Latest.Rows, want)
	}
	if got := len(rows["dataset.version.create"]); got == 0 {
		l.t.Error("the ledger knows no version of a dataset")
	}
	for i := 1; i < len(d.Versions); i++ {
		if d.Versions[i-1].Rows <= d.Versions[i].Rows {
			l.t.Errorf("two versions of readings have %d and %d rows: one file was read twice", d.Versions[i].Rows, d.Versions[i-1].Rows)
		}
	}
}

// samples is how many predictions are asked for one by one; all are counted.
const samples = 150

func (l *load) checkAsks() {
	total, logged := 0, 0
	for i := range l.asks {
		k := &l.asks[i]
		total += len(k.answered)
		ids := map[string]bool{}
		requests := slices.Sorted(maps.Keys(k.answered))
		for n, request := range requests {
			id := k.answered[request]
			if ids[id] {
				l.t.Errorf("prediction %s answered two requests", id)
			}
			ids[id] = true
			if n%max(1, len(requests)/samples) != 0 {
				continue
			}
			for _, name := range []string{request, id} {
				if a := l.call(l.amal.token, "GET", project+"/predictions/"+url.PathEscape(name)+"/why", nil); a.status != 200 || !strings.Contains(string(a.body), id) {
					l.t.Errorf("prediction %s of %s was acknowledged; asked by %s: %d %.300s", id, request, name, a.status, a.body)
				}
			}
		}
	}
	var traffic struct{ Items []struct{ Predictions int } }
	l.get(project+"/models/breaks/traffic", &traffic)
	for _, x := range traffic.Items {
		logged += x.Predictions
	}
	if logged != total {
		l.t.Errorf("%d predictions are logged, acknowledged were %d", logged, total)
	}
	l.t.Logf("%d predictions, %d ingests, %d moves, %d roles, %d tokens, %d runs with metrics", total, len(l.ingests.runs), len(l.moves.promoted)+len(l.moves.back), len(l.roles.bound), len(l.keys.tokens), len(l.metrics[0].runs)+len(l.metrics[1].runs))
}
