package saga

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/broker"
)

// Metrics is what a service's consumers count.
type Metrics struct {
	batch       *prometheus.HistogramVec
	handler     *prometheus.HistogramVec
	retries     *prometheus.CounterVec
	duplicates  *prometheus.CounterVec
	deadLetters *prometheus.CounterVec
	parked      *prometheus.GaugeVec
	parkedRows  *prometheus.GaugeVec
	lag         lagCollector
}

// NewMetrics registers the consumers' metrics; a nil registry registers none.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		batch: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "converge_consumer_batch_size",
			Help: "Messages handled in one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)}, []string{"group"}),
		handler: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "converge_consumer_handler_seconds",
			Help: "Time a handler took for its part of a batch.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}, []string{"group", "topic"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "converge_consumer_retries_total",
			Help: "Transactions rolled back and tried again, by kind: fault (infrastructure), batch (split), message."}, []string{"group", "kind"}),
		duplicates: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "converge_consumer_duplicates_total",
			Help: "Messages that the inbox had seen before."}, []string{"group"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "converge_consumer_dead_letters_total",
			Help: "Messages given up and sent to the dead letter topic."}, []string{"group", "topic"}),
		parked: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "converge_consumer_parked_messages",
			Help: "Messages that wait in memory for their next try, or behind one of their key that does."}, []string{"group"}),
		parkedRows: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "converge_consumer_parked_rows",
			Help: "Messages that wait in the database behind one of their key, of the partitions here."}, []string{"group"}),
		lag: lagCollector{records: prometheus.NewDesc("converge_consumer_lag",
			"Records of the partition that the group has not committed yet, as its member here sees it.", []string{"group", "topic", "partition"}, nil),
			seconds: prometheus.NewDesc("converge_consumer_lag_seconds",
				"Age of the oldest record of the partition that the group has not committed; 0: none. It grows while Kafka cannot be asked.",
				[]string{"group", "topic", "partition"}, nil),
			sessions: map[string]*broker.Session{}},
	}
	if reg != nil {
		reg.MustRegister(m.batch, m.handler, m.retries, m.duplicates, m.deadLetters, m.parked, m.parkedRows, &m.lag)
	}
	return m
}

// lagCollector asks the current sessions when it is scraped.
type lagCollector struct {
	records  *prometheus.Desc
	seconds  *prometheus.Desc
	mu       sync.Mutex
	sessions map[string]*broker.Session
}

func (l *lagCollector) set(group string, s *broker.Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions[group] = s
}

func (l *lagCollector) drop(group string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sessions, group)
}

// Describe implements prometheus.Collector.
func (l *lagCollector) Describe(ch chan<- *prometheus.Desc) { ch <- l.records; ch <- l.seconds }

// Collect implements prometheus.Collector.
func (l *lagCollector) Collect(ch chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for group, s := range l.sessions {
		for tp, lag := range s.Lag() {
			labels := []string{group, tp.Topic, strconv.Itoa(tp.Partition)}
			ch <- prometheus.MustNewConstMetric(l.records, prometheus.GaugeValue, float64(lag.Records), labels...)
			ch <- prometheus.MustNewConstMetric(l.seconds, prometheus.GaugeValue, lag.Age.Seconds(), labels...)
		}
	}
}
