package readside

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, pgtest.New(t, "readside", sagatest.Migrate(Migration())))
}

// The moment moves on with what is applied, stands while something waits or nobody can be asked, and is asked for not
// too often.
func TestFreshness(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	now, waiting, asked := start, time.Time{}, 0
	var away error
	f := &Freshness{
		now:    func() time.Time { return now },
		oldest: func(context.Context) (time.Time, error) { asked++; return waiting, away },
	}
	for _, step := range []struct {
		name    string
		at      time.Duration
		waiting time.Duration // when what waits was written; 0: nothing waits
		away    error
		since   time.Duration // -1: not known
		asked   int
	}{
		{name: "Kafka is away", at: 0, away: errors.New("away"), since: -1, asked: 1},
		{name: "is not asked again at once", at: 900 * time.Millisecond, since: -1, asked: 1},
		{name: "all is applied", at: 1100 * time.Millisecond, since: 1100 * time.Millisecond, asked: 2},
		{name: "is still", at: 1150 * time.Millisecond, waiting: time.Second, since: 1100 * time.Millisecond, asked: 2},
		{name: "something waits", at: 5 * time.Second, waiting: 3 * time.Second, since: 3 * time.Second, asked: 3},
		{name: "Kafka goes away", at: 6 * time.Second, away: errors.New("away"), since: 3 * time.Second, asked: 4},
		{name: "all is applied again", at: 10 * time.Second, since: 10 * time.Second, asked: 5},
	} {
		now, away, waiting = start.Add(step.at), step.away, time.Time{}
		if step.waiting != 0 {
			waiting = start.Add(step.waiting)
		}
		want := time.Time{}
		if step.since >= 0 {
			want = start.Add(step.since)
		}
		if got := f.Since(t.Context()); !got.Equal(want) || asked != step.asked {
			t.Errorf("%s: %s, asked %d times; want %s, %d", step.name, got, asked, want, step.asked)
		}
	}
}
