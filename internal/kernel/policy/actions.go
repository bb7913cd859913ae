package policy

// Action is object.verb. The list below is the whole vocabulary: a route or change with another word is refused.
type Action string

// Capability groups actions by the role that may do them.
type Capability string

// The capabilities. Operating is for stages of the server itself, never for a role.
const (
	Viewing       Capability = "viewing"
	Engineering   Capability = "engineering"
	Approving     Capability = "approving"
	Administering Capability = "administering"
	Replaying     Capability = "replaying"
	Operating     Capability = "operating"
	Personal      Capability = "personal" // everybody on themselves: who am I, sign out
)

// Vocabulary lists every action under its capability. Training marks what the token of a training run may do.
func Vocabulary() map[Capability][]Action {
	return map[Capability][]Action{
		Viewing: {
			"project.read", "dataset.read", "feature.read", "experiment.read", "run.read", "artifact.read", "model.read",
			"release.read", "change.read", "endpoint.read", "endpoint.predict", "monitor.read", "pipeline.read", "lineage.read",
			"event.read", "trace.read", "training.read", "policy.read", "webhook.read",
		},
		Engineering: {
			"project.apply", "source.upload", "dataset.define", "dataset.version.create", "dataset.quarantine.create", "dataset.quarantine.release", "dataset.export",
			"feature.define", "feature.materialize", "feature.push",
			"experiment.create", "experiment.update", "experiment.delete", "experiment.restore",
			"run.create", "run.update", "run.delete", "run.restore", "run.log", "artifact.write", "artifact.delete", "trace.write",
			"model.create", "model.update", "model.delete", "model.version.create", "model.version.update", "model.version.delete", "model.alias.set", "model.alias.delete",
			"release.create", "training.start", "training.finish", "runtime.install",
			"pipeline.run", "pipeline.cancel", "pipeline.retrain",
			"change.request", "change.cancel", "delivery.rollback", "label.push", "alert.acknowledge", "model.monitor",
		},
		Approving:     {"change.approve", "change.reject", "audit.read"},
		Administering: {"project.create", "role.bind", "role.unbind", "user.create", "user.update", "token.create", "token.revoke", "group.update", "webhook.create", "webhook.delete", "webhook.test", "secret.read", "secret.set", "secret.remove", "audit.read", "audit.verify", "policy.explain", "backup.create"},
		Replaying:     {"time.replay"},
		Operating:     {"change.decide", "change.implement", "change.close", "delivery.move", "endpoint.configure", "endpoint.activate", "alert.raise", "gate.record", "pipeline.finish", "lineage.record", "artifact.sweep", "token.expire", "user.admit", "backup.restore", "keys.rotate"},
		Personal:      {"me.read", "session.create", "session.delete", "setup.complete"},
	}
}

// TrainingActions is what the token of a training run may do in its project: log to its own run and register what it made.
func TrainingActions() []Action {
	return []Action{
		"experiment.read", "experiment.create", "run.read", "run.create", "run.update", "run.log", "artifact.read", "artifact.write",
		"model.read", "model.create", "model.version.create", "model.version.update", "dataset.read", "feature.read", "me.read", "trace.write",
		"endpoint.read", "endpoint.predict", // its project's own tests ask the packaged release
	}
}

// Role is a named set of capabilities, bound to a principal in a project ("*" is every project and the installation).
type Role string

// The roles. Approving is never part of admin: whoever administers does not thereby approve.
const (
	Viewer   Role = "viewer"
	Engineer Role = "engineer"
	Approver Role = "approver"
	Admin    Role = "admin"
	Replayer Role = "replayer" // may set event time (`at`) on predictions, labels and pushes
)

// Roles lists the roles.
func Roles() []Role { return []Role{Viewer, Engineer, Approver, Admin, Replayer} }
