package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Backlog is a Prometheus collector of things that wait: how many, and for how long the oldest has. It looks when it is
// scraped, so every instance sees the same. While the look fails it tells nothing; converge_database_up tells why.
type Backlog struct {
	count, age *prometheus.Desc
	read       func(ctx context.Context) (n int, oldest time.Duration, err error)
}

// Gauge names a metric and says what it is.
type Gauge struct{ Name, Help string }

// NewBacklog returns a collector of two gauges, the second in seconds. read gets 2 s, and may run concurrently with
// itself.
func NewBacklog(count, oldestAge Gauge, read func(ctx context.Context) (n int, oldest time.Duration, err error)) *Backlog {
	return &Backlog{
		count: prometheus.NewDesc(count.Name, count.Help, nil, nil),
		age:   prometheus.NewDesc(oldestAge.Name, oldestAge.Help, nil, nil),
		read:  read,
	}
}

// Describe implements prometheus.Collector.
func (b *Backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- b.count
	ch <- b.age
}

// Collect implements prometheus.Collector.
func (b *Backlog) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	n, oldest, err := b.read(ctx)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(b.count, prometheus.GaugeValue, float64(n))
	ch <- prometheus.MustNewConstMetric(b.age, prometheus.GaugeValue, max(0, oldest.Seconds()))
}
