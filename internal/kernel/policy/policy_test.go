package policy

import (
	"strings"
	"testing"

	"falaj/internal/kernel/who"
)

func engine(t testing.TB) *Engine {
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func bindings() Bindings {
	return Bindings{Viewer: {"user:vera"}, Engineer: {"user:amal", "service:ci"}, Approver: {"group:ml-risk"}, Admin: {"user:root"}, Replayer: {"service:replay"}}
}

// The decision table: every row is one promise of DESIGN.md sections 7 and 8.
func TestDecisions(t *testing.T) {
	t.Parallel()
	e := engine(t)
	vera := who.Actor{Kind: who.User, Name: "vera"}
	amal := who.Actor{Kind: who.User, Name: "amal"}
	badr := who.Actor{Kind: who.User, Name: "badr", Groups: []string{"ml-risk"}}
	amalRisk := who.Actor{Kind: who.User, Name: "amal", Groups: []string{"ml-risk"}}
	root := who.Actor{Kind: who.User, Name: "root"}
	anon := who.Actor{Kind: who.Anonymous, Name: "anonymous"}
	open := who.Actor{Kind: who.Anonymous, Name: "anonymous", Via: "open"}
	ci := who.Actor{Kind: who.Service, Name: "ci"}
	ciRead := who.Actor{Kind: who.Service, Name: "ci", Scope: who.Scope{Role: "viewer"}}
	ciOther := who.Actor{Kind: who.Service, Name: "ci", Scope: who.Scope{Project: "loans"}}
	run := who.Actor{Kind: who.Run, Name: "r1", Scope: who.Scope{Project: "flights", Run: "r1"}}
	runOther := who.Actor{Kind: who.Run, Name: "r1", Scope: who.Scope{Project: "loans", Run: "r1"}}
	sys := who.Actor{Kind: who.System, Name: "delivery", OnBehalfOf: "user:amal"}
	replay := who.Actor{Kind: who.Service, Name: "replay"}
	res := func(attrs ...string) Resource {
		r := Resource{Kind: "Thing", ID: "x", Project: "flights", Attrs: map[string]string{}}
		for i := 0; i+1 < len(attrs); i += 2 {
			r.Attrs[attrs[i]] = attrs[i+1]
		}
		return r
	}
	for _, c := range []struct {
		who   who.Actor
		act   Action
		res   Resource
		allow bool
		why   string
	}{
		{vera, "model.read", res(), true, "viewers-read"},
		{vera, "run.log", res(), false, ""},
		{vera, "change.approve", res(), false, ""},
		{vera, "user.create", res(), false, ""},
		{vera, "time.replay", res(), false, ""},
		{vera, "delivery.move", res(), false, ""},
		{vera, "me.read", res(), true, "everybody-on-themselves"},
		{amal, "model.read", res(), true, "viewers-read"},
		{amal, "run.log", res(), true, "engineers-work"},
		{amal, "dataset.version.create", res(), true, "engineers-work"},
		{amal, "change.request", res(), true, "engineers-work"},
		{amal, "delivery.rollback", res(), true, "engineers-work"},
		{amal, "change.approve", res(), false, ""},
		{amal, "role.bind", res(), false, ""},
		{amal, "audit.read", res(), false, ""},
		{amal, "time.replay", res(), false, ""},
		{amal, "delivery.move", res(), false, ""},
		{amal, "endpoint.configure", res(), false, ""},
		{amal, "alert.raise", res(), false, ""},
		{badr, "change.approve", res("requester", "user:amal"), true, "approvers-decide"},
		{badr, "change.reject", res("requester", "user:amal"), true, "approvers-decide"},
		{badr, "change.approve", res("requester", "user:badr"), false, "requester-may-not-approve"},
		{badr, "change.approve", res("requester", "user:amal", "author", "user:badr"), false, "author-may-not-approve"},
		{badr, "run.log", res(), false, ""},
		{badr, "model.read", res(), true, "viewers-read"},
		{badr, "audit.read", res(), true, "approvers-decide"},
		{amalRisk, "change.approve", res("requester", "user:amal"), false, "requester-may-not-approve"},
		{amalRisk, "change.reject", res("requester", "user:amal"), true, "approvers-decide"},
		{root, "user.create", res(), true, "admins-govern"},
		{root, "audit.verify", res(), true, "admins-govern"},
		{root, "run.log", res(), true, "engineers-work"},
		{root, "change.approve", res("requester", "user:amal"), false, ""},
		{root, "delivery.move", res(), false, ""},
		{anon, "model.read", res(), false, ""},
		{anon, "endpoint.predict", res(), false, ""},
		{anon, "me.read", res(), true, "everybody-on-themselves"},
		{anon, "session.create", res(), true, "everybody-on-themselves"},
		{anon, "change.approve", res(), false, "anonymous-never-approves"},
		{open, "model.read", res(), true, "open-mode"},
		{open, "run.create", res(), true, "open-mode"},
		{open, "time.replay", res(), true, "open-mode"},
		{open, "change.approve", res(), false, "anonymous-never-approves"},
		{open, "user.create", res(), false, "anonymous-never-approves"},
		{ci, "run.log", res(), true, "engineers-work"},
		{ciRead, "run.log", res(), false, "token-scope-role"},
		{ciRead, "model.read", res(), true, "viewers-read"},
		{ciOther, "run.log", res(), false, "token-scope-project"},
		{ciOther, "me.read", res(), true, "everybody-on-themselves"},
		{run, "run.log", res("run", "r1"), true, "runs-log"},
		{run, "run.log", res("run", "r2"), false, "runs-only-their-own"},
		{run, "run.log", res("run", "r2", "parent", "r1"), true, "runs-log"},
		{run, "artifact.write", res("run", "r2"), false, "runs-only-their-own"},
		{run, "run.read", res("run", "r2"), true, "runs-log"},
		{run, "model.version.create", res(), true, "runs-log"},
		{run, "change.request", res(), false, ""},
		{run, "change.approve", res(), false, ""},
		{run, "delivery.move", res(), false, ""},
		{run, "user.create", res(), false, ""},
		{runOther, "run.log", res("run", "r1"), false, "token-scope-project"},
		{sys, "delivery.move", res(), true, "stages-operate"},
		{sys, "endpoint.configure", res(), true, "stages-operate"},
		{sys, "change.approve", res("requester", "user:amal"), false, "requester-may-not-approve"},
		{sys, "change.approve", res(), false, ""},
		{sys, "user.create", res(), false, ""},
		{sys, "user.admit", res(), true, "stages-operate"},
		{root, "user.admit", res(), false, ""},
		{anon, "user.admit", res(), false, ""},
		{replay, "time.replay", res(), true, "replayers-set-time"},
		{replay, "run.log", res(), false, ""},
		{amal, "source.upload", res("region", "ae"), true, "engineers-work"},
		{amal, "source.upload", res("region", "us"), false, "residency"},
		{root, "source.upload", res("region", "us"), false, "residency"},
		{amal, "no.such", res(), false, "vocabulary"},
	} {
		d := e.Decide(Input{Actor: c.who, Action: c.act, Resource: c.res, Roles: bindings(), Regions: []string{"ae"}, Open: c.who.Via == "open"})
		var ids []string
		for _, r := range d.Reasons {
			ids = append(ids, r.Policy)
		}
		if d.Allow != c.allow || (c.why != "" && !strings.Contains(strings.Join(ids, " "), c.why)) {
			t.Errorf("%s %s on %v: allow=%v because %v, want %v %s", c.who, c.act, c.res.Attrs, d.Allow, ids, c.allow, c.why)
		}
	}
}

func TestDenyNamesTheRolesThatWouldAllow(t *testing.T) {
	t.Parallel()
	d := engine(t).Decide(Input{Actor: who.Actor{Kind: who.User, Name: "vera"}, Action: "run.log", Resource: Resource{Kind: "Run", ID: "1", Project: "p"}, Roles: bindings()})
	if d.Allow || len(d.Missing) != 2 || d.Missing[0] != Engineer || d.Missing[1] != Admin {
		t.Fatalf("%+v", d)
	}
}

// Each policy is needed: without it at least one row of the table would be decided otherwise. This guards against dead text.
func TestEveryPolicyHasIDAndReason(t *testing.T) {
	t.Parallel()
	e := engine(t)
	if n := len(e.reasons); n < 15 {
		t.Fatalf("%d policies", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	e := engine(b)
	in := Input{Actor: who.Actor{Kind: who.User, Name: "amal"}, Action: "run.log", Resource: Resource{Kind: "Run", ID: "1", Project: "p"}, Roles: bindings()}
	b.ReportAllocs()
	for b.Loop() {
		if !e.Decide(in).Allow {
			b.Fatal("denied")
		}
	}
}
