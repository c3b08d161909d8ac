package order

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/app"
)

// metrics is what the service counts of its own.
type metrics struct {
	orders         *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	contradictions *prometheus.CounterVec
	expirations    prometheus.Counter
	compensations  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_orders_total",
			Help: "Orders that reached a status: PENDING when accepted, then CONFIRMED or CANCELLED, the former perhaps CANCELLING and CANCELLED after all.",
		}, []string{"status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "converge_saga_duration_seconds",
			Help:    "Time from an order's acceptance until it was CONFIRMED or CANCELLED; what a CONFIRMED one becomes later does not count.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 16), // 2 ms to 65 s
		}, []string{"status"}),
		contradictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_order_contradictions_total",
			Help: "Events that came too late to change an order, though they call for another status, or that nobody has asked for.",
		}, []string{"event", "status"}),
		expirations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "converge_orders_expired_total",
			Help: "Orders that were cancelled because they were PENDING for longer than ORDER_DEADLINE.",
		}),
		compensations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_compensations_failed_total",
			Help: "Orders for which something could not be undone at the first try.",
		}, []string{"what"}),
	}
	for _, s := range []Status{Pending, Confirmed, Cancelling, Cancelled} {
		m.orders.WithLabelValues(string(s)) // a rate needs the zero
	}
	m.compensations.WithLabelValues(refund)
	return m
}

func (m *metrics) register(r prometheus.Registerer) {
	r.MustRegister(m.orders, m.duration, m.contradictions, m.expirations, m.compensations)
}

func (m *metrics) accepted(n int) { m.orders.WithLabelValues(string(Pending)).Add(float64(n)) }

// moved counts an order that was one and is another, so long after its acceptance.
func (m *metrics) moved(was, is Status, took time.Duration) {
	m.orders.WithLabelValues(string(is)).Inc()
	if was == Pending {
		m.duration.WithLabelValues(string(is)).Observe(max(0, took.Seconds())) // clocks of two instances differ
	}
}

func (m *metrics) contradicted(event string, is Status) {
	m.contradictions.WithLabelValues(event, string(is)).Inc()
}

func (m *metrics) expired(n int) { m.expirations.Add(float64(n)) }

func (m *metrics) compensationFailed(what string) { m.compensations.WithLabelValues(what).Inc() }

// newCancelling looks at the orders that are CANCELLING.
func newCancelling(db *pgxpool.Pool) *app.Backlog {
	return app.NewBacklog(
		app.Gauge{Name: "converge_orders_cancelling", Help: "Orders that are CANCELLING."},
		app.Gauge{Name: "converge_orders_cancelling_oldest_age_seconds", Help: "How long the oldest of them has been; 0 when none is."},
		func(ctx context.Context) (int, time.Duration, error) { return readCancelling(ctx, db) })
}
