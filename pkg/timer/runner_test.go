package timer_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/timer"
)

// run starts a runner; stop ends it and waits for it.
func run(t testing.TB, db *pgxpool.Pool, relay *outbox.Relay, cfg timer.Config) (stop func()) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	r := timer.NewRunner(db, relay, cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// await waits until the outbox holds n events, and returns them.
func await(t testing.TB, db *pgxpool.Pool, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if got := fired(t, db); len(got) >= n {
			return got
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d fired", len(fired(t, db)), n)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Instances that compete, whose connections break at any moment, between the deletion and the commit too, fire each
// timer once, and those of a key in the order of their times.
func TestExactlyOnce(t *testing.T) {
	t.Parallel()
	const keys, times = 150, 4
	db := setup(t)
	instances, err := pgxpool.NewWithConfig(t.Context(), db.Config()) // connections that break
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(instances.Close)
	var stops []func()
	for range 3 {
		stops = append(stops, run(t, instances, nil, timer.Config{Poll: 20 * time.Millisecond, Batch: 5}))
	}
	setting, breaking := errgroup.Group{}, errgroup.Group{}
	for k := range keys {
		setting.Go(func() error {
			for n := range times { // a topic each, or they would replace one another
				c := late(strconv.Itoa(k), time.Duration(200+30*n)*time.Millisecond, n)
				c.Message.Topic += strconv.Itoa(n)
				if err := changeAs(t.Context(), db, "svc", c); err != nil {
					return err
				}
			}
			return nil
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	broken := int64(0)
	breaking.Go(func() error { // whoever fires
		for ctx.Err() == nil {
			tag, err := db.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND datname = current_database() AND granted AND random() < 0.3`)
			if err != nil && ctx.Err() == nil {
				return err
			}
			broken += tag.RowsAffected()
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
		return nil
	})
	if err := setting.Wait(); err != nil {
		t.Fatal(err)
	}
	got := awaitRows(t, db, keys*times)
	cancel()
	if err := breaking.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, stop := range stops {
		stop()
	}
	if n := pending(t, db); n != 0 {
		t.Errorf("%d timers are left", n)
	}
	seen := map[string]int{}
	for _, e := range got {
		seen[e]++
	}
	for e, n := range seen {
		if n != 1 {
			t.Errorf("%s fired %d times", e, n)
		}
	}
	if len(seen) != keys*times || broken == 0 {
		t.Errorf("%d of %d fired, and %d connections broke", len(seen), keys*times, broken)
	}
}

// awaitRows waits until the outbox holds n rows of any topic, and returns them as "topic key".
func awaitRows(t testing.TB, db *pgxpool.Pool, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		rows, _ := db.Query(ctx, `SELECT topic || ' ' || convert_from(key, 'UTF8') FROM outbox ORDER BY id`)
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if len(got) >= n {
			return got
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d fired", len(got), n)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Two timers of a key come in the order of their times, though several instances compete for them: whoever sees the
// later one sees the earlier one, too, as the relay must.
func TestOrderOfAKey(t *testing.T) {
	t.Parallel()
	const keys, times = 20, 5
	db := setup(t)
	// Between the firing of a batch and its commit there is time for others.
	_, err := db.Exec(t.Context(), `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NULL; END';
CREATE TRIGGER slow AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION slow()`)
	if err != nil {
		t.Fatal(err)
	}
	var changes []timer.Change
	for k := range keys {
		for n := range times {
			c := late(strconv.Itoa(k), -time.Hour+time.Duration(n*keys+k)*time.Millisecond, n)
			c.Message.Topic += strconv.Itoa(n)
			changes = append(changes, c)
		}
	}
	change(t, db, changes...)
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			_, err := timer.NewRunner(db, nil, timer.Config{Batch: 3 + i}).Fire(t.Context())
			return err
		})
	}
	for got := []string(nil); len(got) < keys*times; {
		got = awaitRows(t, db, len(got)+1)
		seen, last := map[string]int{}, map[string]string{}
		for _, e := range got {
			topic, key, _ := strings.Cut(e, " ")
			if topic <= last[key] {
				t.Errorf("key %s: %s after %s", key, topic, last[key])
			}
			seen[key]++
			last[key] = topic
		}
		for key, n := range seen {
			if want := "late" + strconv.Itoa(n-1); last[key] != want {
				t.Fatalf("key %s: %s is there before %s", key, last[key], want)
			}
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// What was set before a stop fires after the next start, once.
func TestRestart(t *testing.T) {
	t.Parallel()
	db := setup(t)
	stop := run(t, db, nil, timer.Config{})
	change(t, db, late("a", 0, 1))
	want(t, await(t, db, 1), "a=1")
	stop()
	change(t, db, late("b", 0, 2), late("c", time.Hour, 3))
	if got := fired(t, db); len(got) != 1 {
		t.Errorf("fired while nobody runs: %q", got)
	}
	stop = run(t, db, nil, timer.Config{})
	want(t, await(t, db, 2), "a=1", "b=2")
	stop()
	want(t, fired(t, db), "a=1", "b=2")
}

// lateness is how often timers were later than a bound, by the runner's own metric.
func lateness(t testing.TB, reg *prometheus.Registry) (within map[float64]uint64, count uint64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	within = map[float64]uint64{}
	for _, f := range families {
		if f.GetName() == "converge_timers_late_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			for _, b := range h.GetBucket() {
				within[b.GetUpperBound()] = b.GetCumulativeCount()
			}
			count = h.GetSampleCount()
		}
	}
	return within, count
}

// Timers of which nobody tells the runner, as another instance's are, fire within a second of their times.
func TestPrecision(t *testing.T) {
	t.Parallel()
	const timers = 40
	db := setup(t)
	reg := prometheus.NewRegistry()
	run(t, db, nil, timer.Config{Metric: reg})
	for i := range timers {
		change(t, db, late(strconv.Itoa(i), time.Duration(i*50)*time.Millisecond, i))
	}
	got := await(t, db, timers)
	if !slices.IsSortedFunc(got, func(x, y string) int { return len(x) - len(y) }) {
		t.Errorf("fired as %q", got)
	}
	if within, n := lateness(t, reg); n != timers || within[1.024] != timers {
		t.Errorf("%d of %d fired within a second: %v", within[1.024], n, within)
	}
}

// A commit of the same process wakes the runner, which would look in an hour otherwise; one that is rolled back does
// not, and what is later than the next look does not.
func TestWoken(t *testing.T) {
	t.Parallel()
	db := setup(t)
	relay := outbox.NewRelay(db, nil, outbox.Config{}) // is not run: the events stay in the outbox
	reg := prometheus.NewRegistry()
	run(t, db, relay, timer.Config{Poll: time.Hour, Metric: reg})
	set := func(events int, changes ...timer.Change) {
		t.Helper()
		var b pgx.Batch
		if err := timer.Queue(&b, "svc", changes); err != nil {
			t.Fatal(err)
		}
		msgs := make([]outbox.Message, events)
		for i := range msgs {
			msgs[i] = late("now", 0, 0).Message
		}
		h, err := relay.Queue(&b, msgs)
		if err != nil {
			t.Fatal(err)
		}
		if in, ok := timer.Soonest(changes); ok {
			h = relay.Due(h, in)
		}
		err = db.SendBatch(t.Context(), &b).Close()
		h.Done(err == nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	set(0, late("a", 60*time.Millisecond, 1))
	want(t, await(t, db, 1), "a=1")
	set(1, late("b", 20*time.Millisecond, 2), late("c", time.Hour, 3))
	want(t, await(t, db, 3), "a=1", "now=0", "b=2")
	set(0, late("d", 0, 4), cancelled("c"))
	want(t, await(t, db, 4), "a=1", "now=0", "b=2", "d=4")
}

// BenchmarkIdle is one look while a million timers wait.
func BenchmarkIdle(b *testing.B) {
	for _, n := range []int{0, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := setup(b)
			fill(b, db, n, time.Hour)
			r := timer.NewRunner(db, nil, timer.Config{})
			b.ResetTimer()
			for range b.N {
				if fired, err := r.Look(b.Context()); err != nil || fired {
					b.Fatal(fired, err)
				}
			}
		})
	}
}

// BenchmarkFire fires timers of 700-byte events while a million others wait.
func BenchmarkFire(b *testing.B) {
	db := setup(b)
	fill(b, db, 1_000_000, time.Hour)
	due := 100_000
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		fill(b, db, due, -time.Hour)
		b.StartTimer()
		n, err := timer.NewRunner(db, nil, timer.Config{}).Fire(b.Context())
		if err != nil || n != due {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(due*b.N)/b.Elapsed().Seconds(), "timers/s")
}

// BenchmarkSet is what a timer costs that is set and cancelled in batches, while many wait.
func BenchmarkSet(b *testing.B) {
	for _, batch := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			db := setup(b)
			fill(b, db, 100_000, time.Hour)
			value := make([]byte, 500)
			b.ResetTimer()
			for i := range b.N {
				set, cancel := make([]timer.Change, batch), make([]timer.Change, batch)
				for k := range batch {
					c := late(fmt.Sprint("set-", i, "-", k), time.Hour, k)
					c.Message.Value = value
					set[k], cancel[k] = c, cancelled(string(c.Message.Key))
				}
				change(b, db, set...)
				change(b, db, cancel...)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/timer")
		})
	}
}

func fill(b *testing.B, db *pgxpool.Pool, n int, in time.Duration) {
	b.Helper()
	_, err := db.Exec(b.Context(), `INSERT INTO timers
SELECT 'svc', 'late', convert_to($2::text || i, 'UTF8'), now() + $2::interval + i * interval '1 ms',
    convert_to(repeat('x', 500), 'UTF8'), '[{"Key": "ce_id", "Value": "' || repeat('eHh4', 60) || '"}]'
FROM generate_series(1, $1) AS i`, n, in)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := db.Exec(b.Context(), `VACUUM ANALYZE timers`); err != nil {
		b.Fatal(err)
	}
}
