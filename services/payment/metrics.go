package payment

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// What an attempt to pay back comes to.
const (
	attemptRefunded = "refunded"
	attemptRefused  = "refused" // the merchant's account cannot pay
	attemptError    = "error"
)

// metrics is what the service counts of its own.
type metrics struct{ attempts *prometheus.CounterVec }

func newMetrics() *metrics {
	m := &metrics{attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "converge_refund_attempts_total",
		Help: "Attempts to pay an order back, by what they came to.",
	}, []string{"result"})}
	for _, result := range []string{attemptRefunded, attemptRefused, attemptError} {
		m.attempts.WithLabelValues(result) // a rate needs the zero
	}
	return m
}

func (m *metrics) attempted(result string) { m.attempts.WithLabelValues(result).Inc() }

// refundsCollector looks at the refunds that wait when it is scraped.
type refundsCollector struct {
	db           *pgxpool.Pool
	waiting, age *prometheus.Desc
}

func newRefundsCollector(db *pgxpool.Pool) *refundsCollector {
	return &refundsCollector{
		db:      db,
		waiting: prometheus.NewDesc("converge_refunds_waiting", "Refunds that could not be made yet, of all instances.", nil, nil),
		age:     prometheus.NewDesc("converge_refunds_oldest_age_seconds", "Age of the oldest refund that could not be made yet; 0 when none waits.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *refundsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.waiting
	ch <- c.age
}

const waitingRefundsSQL = `SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM refunds WHERE state = 'WAITING'`

// Collect implements prometheus.Collector. Without the database it says nothing; converge_database_up tells.
func (c *refundsCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var waiting int64
	var age float64
	if err := c.db.QueryRow(ctx, waitingRefundsSQL).Scan(&waiting, &age); err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(waiting))
	ch <- prometheus.MustNewConstMetric(c.age, prometheus.GaugeValue, max(0, age))
}
