package app

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/timer"
)

// scrapeTimeout bounds one look at the database for a scrape.
const scrapeTimeout = 2 * time.Second

// databaseCollector looks at the database when it is scraped.
type databaseCollector struct {
	pool                                *pgxpool.Pool
	depth, age, overdue, used, size, up *prometheus.Desc
}

func newDatabaseCollector(pool *pgxpool.Pool) *databaseCollector {
	return &databaseCollector{
		pool:    pool,
		depth:   prometheus.NewDesc("converge_outbox_depth", "Events that wait to be published, counted up to 100,000.", nil, nil),
		age:     prometheus.NewDesc("converge_outbox_oldest_age_seconds", "Age of the oldest event that waits to be published; 0 when none does.", nil, nil),
		overdue: prometheus.NewDesc("converge_timers_overdue_seconds", "For how long the first timer has been due and has not fired; 0 when none is.", nil, nil),
		used:    prometheus.NewDesc("converge_database_connections_used", "Connections of the pool in use.", nil, nil),
		size:    prometheus.NewDesc("converge_database_connections_max", "Connections the pool may have.", nil, nil),
		up:      prometheus.NewDesc("converge_database_up", "1 when the database answered this scrape.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *databaseCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.depth, c.age, c.overdue, c.used, c.size, c.up} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *databaseCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	stat := c.pool.Stat()
	gauge(c.used, float64(stat.AcquiredConns()))
	gauge(c.size, float64(stat.MaxConns()))

	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	s, err := outbox.ReadStats(ctx, c.pool)
	if err != nil {
		gauge(c.up, 0)
		return
	}
	if overdue, err := timer.Overdue(ctx, c.pool); err == nil {
		gauge(c.overdue, overdue.Seconds())
	}
	gauge(c.up, 1)
	gauge(c.depth, float64(s.Depth))
	gauge(c.age, s.OldestAge.Seconds())
}
