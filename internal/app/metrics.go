package app

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// meters are the server's own Prometheus metrics, in a registry of its own.
type meters struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMeters() *meters {
	m := &meters{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "falaj_http_requests_total", Help: "Requests by route and status."}, []string{"route", "status"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "falaj_http_request_seconds", Help: "Seconds per request by route.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}}, []string{"route"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts by route pattern, never by path: labels must stay few.
func (m *meters) observe(pattern string, status int, d time.Duration) {
	if pattern == "" {
		pattern = "none"
	}
	m.requests.WithLabelValues(pattern, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(pattern).Observe(d.Seconds())
}

func (m *meters) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// stageMeters reads what the stages count themselves, at the moment it is asked: the hot path pays only for its own atomics.
type stageMeters struct {
	app         *App
	predictions *prometheus.Desc
	latency     *prometheus.Desc
	nulls       *prometheus.Desc
	dropped     *prometheus.Desc
	behind      *prometheus.Desc
	ledger      *prometheus.Desc
}

func newStageMeters(a *App) *stageMeters {
	labels := []string{"project", "model", "environment", "variant", "release"}
	return &stageMeters{
		app:         a,
		predictions: prometheus.NewDesc("falaj_predictions_total", "Predictions answered (variant shadow: scored beside).", labels, nil),
		latency:     prometheus.NewDesc("falaj_prediction_seconds", "Seconds per prediction request, quantile by label.", append(labels, "quantile"), nil),
		nulls:       prometheus.NewDesc("falaj_predictions_with_missing_features_total", "Predictions with at least one missing feature.", labels, nil),
		dropped:     prometheus.NewDesc("falaj_predictions_not_logged_total", "Predictions answered but not logged, because the log was blocked.", nil, nil),
		behind:      prometheus.NewDesc("falaj_events_behind", "Recorded events that some subscriber has not taken.", nil, nil),
		ledger:      prometheus.NewDesc("falaj_ledger_rows", "Rows of the audit ledger.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *stageMeters) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.predictions, m.latency, m.nulls, m.dropped, m.behind, m.ledger} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *stageMeters) Collect(ch chan<- prometheus.Metric) {
	for _, r := range m.app.stages.monitoring.Snapshot() {
		release := strings.TrimPrefix(r.Release, "sha256:")
		labels := []string{r.Project, r.Model, r.Environment, r.Variant, release[:min(12, len(release))]}
		ch <- prometheus.MustNewConstMetric(m.predictions, prometheus.CounterValue, float64(r.Count), labels...)
		ch <- prometheus.MustNewConstMetric(m.nulls, prometheus.CounterValue, float64(r.NullRows), labels...)
		for _, q := range []float64{0.5, 0.95, 0.99} {
			ch <- prometheus.MustNewConstMetric(m.latency, prometheus.GaugeValue, r.Latency.Quantile(q).Seconds(), append(labels, strconv.FormatFloat(q, 'f', -1, 64))...)
		}
	}
	ch <- prometheus.MustNewConstMetric(m.dropped, prometheus.CounterValue, float64(m.app.stages.monitoring.Dropped()))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if n, err := m.app.relay.Behind(ctx); err == nil {
		ch <- prometheus.MustNewConstMetric(m.behind, prometheus.GaugeValue, float64(n))
	}
	if n, _, err := m.app.store.Head(ctx); err == nil {
		ch <- prometheus.MustNewConstMetric(m.ledger, prometheus.GaugeValue, float64(n))
	}
}
