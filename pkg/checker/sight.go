package checker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/clock"
)

// sight is when each part of checks has looked last: who does not look finds nothing. It is a metric, whose age grows
// while nothing is noted. A part that has never looked is as old as the process. Safe for concurrent use.
type sight struct {
	at, age *prometheus.Desc
	now     func() time.Time
	parts   []Part

	mu    sync.Mutex
	began time.Time
	last  map[Part]time.Time // when the part's last check that could look began
}

func newSight(parts []Part) *sight {
	return &sight{
		at: prometheus.NewDesc("converge_check_part_last_success_timestamp_seconds",
			"When the last check began in which this part could look, in seconds since 1970.", []string{"part"}, nil),
		age: prometheus.NewDesc("converge_check_part_age_seconds",
			"How long ago that was; of a part that has never looked, since the process began.", []string{"part"}, nil),
		now: clock.Now, parts: parts, began: clock.Now(), last: map[Part]time.Time{},
	}
}

// saw notes the parts of a check that could look.
func (s *sight) saw(r Report) {
	seen := map[Part]time.Time{}
	for _, p := range r.saw() {
		seen[p] = r.At
	}
	s.remember(seen)
}

// remember takes over what is newer.
func (s *sight) remember(seen map[Part]time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, at := range seen {
		if at.After(s.last[p]) {
			s.last[p] = at
		}
	}
}

// Describe implements [prometheus.Collector].
func (s *sight) Describe(out chan<- *prometheus.Desc) { out <- s.at; out <- s.age }

// Collect implements [prometheus.Collector].
func (s *sight) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	last, began := maps.Clone(s.last), s.began
	s.mu.Unlock()
	for _, p := range s.parts {
		at, ok := last[p]
		if ok {
			out <- prometheus.MustNewConstMetric(s.at, prometheus.GaugeValue, float64(at.UnixMilli())/1000, string(p))
		} else {
			at = began
		}
		out <- prometheus.MustNewConstMetric(s.age, prometheus.GaugeValue, max(0, s.now().Sub(at).Seconds()), string(p))
	}
}

const recallEvery = time.Minute

const (
	lookedSQL = `INSERT INTO looks (part, at) SELECT unnest($1::text[]), $2::timestamptz
ON CONFLICT (part) DO UPDATE SET at = greatest(looks.at, excluded.at)`

	readLooksSQL = `SELECT part, at FROM looks`
)

// recall takes over what is stored, now and every minute until ctx ends, and then returns nil: by a restart nobody
// becomes blind, nor sees, and another instance's look is one, too.
func (s *sight) recall(ctx context.Context, r *records, log *slog.Logger) error {
	tick := time.NewTicker(recallEvery)
	defer tick.Stop()
	for {
		last, err := r.looks(ctx)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "trying again later", "error", err)
		}
		s.remember(last)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// looks reads when each part has looked last, by whichever instance.
func (r *records) looks(ctx context.Context) (map[Part]time.Time, error) {
	rows, _ := r.db.Query(ctx, readLooksSQL) // the error surfaces in the reader
	last := map[Part]time.Time{}
	var p Part
	var at time.Time
	_, err := pgx.ForEachRow(rows, []any{&p, &at}, func() error { last[p] = at; return nil })
	if err != nil {
		return nil, fmt.Errorf("read when checks have looked last: %w", err)
	}
	return last, nil
}
