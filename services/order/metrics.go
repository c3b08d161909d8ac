package order

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what the service counts of its own.
type metrics struct {
	orders         *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	contradictions *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_orders_total",
			Help: "Orders that reached a status: PENDING when accepted, then CONFIRMED or CANCELLED.",
		}, []string{"status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "converge_saga_duration_seconds",
			Help:    "Time from an order's acceptance to its terminal status.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 16), // 2 ms to 65 s
		}, []string{"status"}),
		contradictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_order_contradictions_total",
			Help: "Events that came too late to change an order, though they call for the other terminal status.",
		}, []string{"event", "status"}),
	}
	for _, s := range []Status{Pending, Confirmed, Cancelled} {
		m.orders.WithLabelValues(string(s)) // a rate needs the zero
	}
	return m
}

func (m *metrics) register(r prometheus.Registerer) {
	r.MustRegister(m.orders, m.duration, m.contradictions)
}

func (m *metrics) accepted(n int) { m.orders.WithLabelValues(string(Pending)).Add(float64(n)) }

func (m *metrics) settled(to Status, took time.Duration) {
	m.orders.WithLabelValues(string(to)).Inc()
	m.duration.WithLabelValues(string(to)).Observe(max(0, took.Seconds())) // clocks of two instances differ
}

func (m *metrics) contradicted(event string, is Status) {
	m.contradictions.WithLabelValues(event, string(is)).Inc()
}
