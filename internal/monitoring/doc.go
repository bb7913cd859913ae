// Package monitoring keeps what served models said and what turned out to be true, and says when a model got worse.
// It holds the prediction log, late labels, quality and drift per window of event time, latency per release, and alerts.
package monitoring
