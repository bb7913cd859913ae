package app

import (
	"context"

	"falaj/internal/compat/mlflow"
	"falaj/internal/compat/oip"
	"falaj/internal/door"
)

// foreign are the routes of the dialects that people's clients already speak.
func (a *App) foreign() []door.Route {
	st := a.stages
	routes := mlflow.Routes(st.tracking, st.registry)
	return append(routes, oip.Routes(oip.Config{Serving: st.serving, Store: a.store, Version: Version, Log: a.log, Ready: func() error { return a.store.Ping(context.Background()) }})...)
}
