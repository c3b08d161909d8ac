package payment

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/app"
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

// tried counts attempts that were made.
func (m *metrics) tried(refunds ...refund) {
	for _, r := range refunds {
		if r.refusal != nil {
			m.attempted(attemptRefused)
		} else {
			m.attempted(attemptRefunded)
		}
	}
}

func (m *metrics) attempted(result string) { m.attempts.WithLabelValues(result).Inc() }

// newWaitingRefunds looks at the refunds that wait.
func newWaitingRefunds(db *pgxpool.Pool) *app.Backlog {
	return app.NewBacklog(
		app.Gauge{Name: "converge_refunds_waiting", Help: "Refunds that could not be made yet, of all instances."},
		app.Gauge{Name: "converge_refunds_oldest_age_seconds", Help: "Age of the oldest refund that could not be made yet; 0 when none waits."},
		func(ctx context.Context) (n int, oldest time.Duration, err error) {
			var age float64
			err = db.QueryRow(ctx, waitingRefundsSQL).Scan(&n, &age)
			return n, time.Duration(age * float64(time.Second)), err
		})
}
