// Package who names the actor of a request and carries it in the context.
// Every change of state is made by somebody; a context without an actor is anonymous and may do nothing by default.
package who

import "context"

// Kind of an actor.
type Kind string

// The kinds of actors.
const (
	Anonymous Kind = "anonymous"
	User      Kind = "user"
	Service   Kind = "service" // a service token
	Run       Kind = "run"     // the token of one training run, dead when the run ends
	System    Kind = "system"  // a stage of the server itself, e.g. system:delivery
)

// Scope limits an actor below its roles. Empty fields do not limit.
type Scope struct {
	Project string // only this project
	Run     string // only this tracking run (MLflow's 32 hex)
	Role    string // at most this role
}

// Actor is who acts. Name is unique within its kind.
type Actor struct {
	Kind       Kind
	Name       string
	Groups     []string
	Scope      Scope
	Via        string // session, token, run-token, open, system
	OnBehalfOf string // the person or service a system actor works for
}

// String is kind:name, the spelling of policies and the ledger.
func (a Actor) String() string {
	if a.Kind == "" || a.Kind == Anonymous {
		return "anonymous"
	}
	return string(a.Kind) + ":" + a.Name
}

// Origin is the one the act is done for: OnBehalfOf when set, else the actor itself.
// Separation of duties compares origins, so a person cannot hide behind a workflow.
func (a Actor) Origin() string {
	if a.OnBehalfOf != "" {
		return a.OnBehalfOf
	}
	return a.String()
}

type key struct{}

// With puts the actor into the context.
func With(ctx context.Context, a Actor) context.Context { return context.WithValue(ctx, key{}, a) }

// From returns the actor of the context, anonymous when there is none.
func From(ctx context.Context) Actor {
	if a, ok := ctx.Value(key{}).(Actor); ok {
		return a
	}
	return Actor{Kind: Anonymous, Name: "anonymous"}
}

// AsSystem returns a context in which a stage of the server acts for whoever acted before.
func AsSystem(ctx context.Context, stage string) context.Context {
	prev := From(ctx)
	a := Actor{Kind: System, Name: stage, Via: "system"}
	switch {
	case prev.OnBehalfOf != "":
		a.OnBehalfOf = prev.OnBehalfOf
	case prev.Kind != Anonymous && prev.Kind != System:
		a.OnBehalfOf = prev.String()
	}
	return With(ctx, a)
}
