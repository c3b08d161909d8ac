package checker

import (
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what the service counts of its own.
type metrics struct {
	findings  *prometheus.GaugeVec
	found     *prometheus.CounterVec
	checks    *prometheus.CounterVec
	duration  *prometheus.GaugeVec
	orders    *prometheus.GaugeVec
	success   prometheus.Gauge
	inFlight  prometheus.Gauge
	watermark prometheus.Gauge
	repairs   *prometheus.CounterVec
	braked    *prometheus.GaugeVec
	known     *prometheus.GaugeVec
	sight     *sight
	cfg       Config // by which kinds and parts are known
}

func newMetrics(r prometheus.Registerer, cfg Config) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		findings:  gauges("converge_check_findings", "What the last check found: of the recent orders, or of all, the stock and the ledger; without what it repaired.", "scope", "kind"),
		found:     counters("converge_check_findings_total", "Findings of all checks: what is not repaired is found again.", "kind"),
		checks:    counters("converge_checks_total", "Checks, by what came of them.", "result"),
		duration:  gauges("converge_check_duration_seconds", "How long the last check took.", "scope"),
		orders:    gauges("converge_check_orders", "Orders that the last check compared.", "scope"),
		success:   gauge("converge_check_last_success_timestamp_seconds", "When the last check began all of whose parts could look, in seconds since 1970."),
		inFlight:  gauge("converge_check_in_flight", "Orders that differed at the last check and were on their way."),
		watermark: gauge("converge_check_watermark_age_seconds", "How long ago an order must have changed for the last check to judge it."),
		repairs:   counters("converge_repairs_total", "Repairs that were tried, by what came of them.", "kind", "state"),
		sight:     newSight(cfg.parts()),
		cfg:       cfg,
	}
	m.braked = gauges("converge_check_braked", "1: the last check repairs nothing before somebody confirms it, for it found too much, or another database.", "scope")
	m.known = gauges("converge_check_acknowledged", "Findings of the last check that somebody knows of. converge_check_findings does not count them.", "scope", "kind")
	for _, scope := range []string{scopeAll, scopeRecent} {
		m.braked.WithLabelValues(scope)
	}
	for _, result := range []string{clean, found, failed} {
		m.checks.WithLabelValues(result) // a rate needs the zero
	}
	for _, kind := range m.cfg.kinds() {
		m.findings.WithLabelValues(scopeAll, string(kind))
		m.known.WithLabelValues(scopeAll, string(kind))
		m.found.WithLabelValues(string(kind))
	}
	r.MustRegister(m.findings, m.found, m.checks, m.duration, m.orders, m.success, m.inFlight, m.watermark, m.repairs, m.braked, m.known, m.sight)
	return m
}

// What comes of a check.
const (
	clean  = "clean"
	found  = "found"
	failed = "failed"
)

// What a check looked at.
const (
	scopeAll    = "all"
	scopeRecent = "recent"
	scopeOrder  = "order"
)

func scopeOf(r Request) string {
	switch {
	case r.Order != uuid.Nil:
		return scopeOrder
	case !r.Since.IsZero():
		return scopeRecent
	}
	return scopeAll
}

// checked notes a check. The gauges are of wide ones alone: a look at one order says nothing of the others. One of
// everything speaks for the recent orders, too. What a part finds that could not look stays what the last look found.
func (m *metrics) checked(request Request, report Report, err error, now time.Time) {
	result := clean
	switch {
	case err != nil:
		result = failed
	case len(report.Findings) > 0:
		result = found
	}
	m.checks.WithLabelValues(result).Inc()
	if err != nil && len(report.Looked) == 0 {
		return
	}
	m.sight.saw(report)
	open, known := map[Kind]int{}, map[Kind]int{}
	for _, f := range report.Findings {
		m.found.WithLabelValues(string(f.Kind)).Inc()
		switch f.Repair.State {
		case Planned, None:
			open[f.Kind]++
		default:
			m.repairs.WithLabelValues(string(f.Kind), string(f.Repair.State)).Inc()
			if f.Repair.State != Done { // what was refused and undone instead is found no more by the next check
				open[f.Kind]++
			}
		}
	}
	if report.More > 0 { // of those that are not listed none was repaired
		maps.Copy(open, report.Kinds)
	}
	for _, f := range report.Findings {
		if f.Acknowledged != nil && (report.More > 0 || f.Repair.State != Done) {
			open[f.Kind]--
			known[f.Kind]++
		}
	}
	scope := scopeOf(request)
	if scope == scopeOrder {
		return
	}
	scopes := []string{scope}
	if scope == scopeAll {
		scopes = append(scopes, scopeRecent)
	}
	braked := 0.0
	if report.Braked != "" {
		braked = 1
	}
	for _, s := range scopes {
		m.braked.WithLabelValues(s).Set(braked)
		for _, kind := range m.cfg.kinds() {
			if scope == scopeRecent || slices.Contains(report.Looked, m.cfg.partOf(kind)) {
				m.findings.WithLabelValues(s, string(kind)).Set(float64(open[kind]))
				m.known.WithLabelValues(s, string(kind)).Set(float64(known[kind]))
			}
		}
	}
	m.duration.WithLabelValues(scope).Set(float64(report.Cost.DurationMs) / 1000)
	if err == nil {
		m.success.Set(float64(report.At.UnixMilli()) / 1000)
	}
	if !slices.Contains(report.Looked, PartRecent) && !slices.Contains(report.Looked, PartOrders) {
		return
	}
	m.orders.WithLabelValues(scope).Set(float64(report.Checked))
	m.inFlight.Set(float64(report.InFlight))
	m.watermark.Set(max(0, now.Sub(report.Watermark).Seconds()))
}
