package timer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/internal/quiet"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// Config tunes a Runner. Zero values mean the defaults.
type Config struct {
	Poll   time.Duration // between two looks while nothing is due; default 500 ms
	Batch  int           // timers fired in one transaction; default 1000
	Log    *slog.Logger
	Metric prometheus.Registerer // nil: none
}

const (
	// fireWithin bounds a look or a transaction. A database that takes longer is tried again.
	fireWithin = 10 * time.Second

	// busyWait is when to look again for a timer that is due and that another transaction holds: it is being fired,
	// replaced or cancelled.
	busyWait = 50 * time.Millisecond

	lockKey = 0x74696d657273 // "timers": held by the transaction that fires
)

const nextSQL = `SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM timers ORDER BY due_at LIMIT 1`

// One transaction fires at a time: two that shared the timers could commit a later one before an earlier one of its
// key. A timer that a handler's transaction holds is not waited for: that one replaces or cancels it, and may take
// long.
const (
	lockSQL = `SELECT pg_advisory_xact_lock($1)`

	fireSQL = `DELETE FROM timers WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM timers WHERE due_at <= (SELECT clock_timestamp()) AND due_at >= $1
    ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING due_at, topic, key, value, headers, extract(epoch FROM clock_timestamp() - due_at)::float8`
)

// Runner fires a database's timers. Any number may run on one database, one in each instance of its services.
//
// While nothing is due it costs one look at the head of an index for each Config.Poll. A commit of its own process that
// sets a timer which is due sooner wakes it; one of another process is found with the next look, or is fired by that
// process's own runner.
type Runner struct {
	pool   *pgxpool.Pool
	relay  *outbox.Relay
	cfg    Config
	faults quiet.Log

	sooner chan struct{} // a timer is due before until
	mu     sync.Mutex
	until  time.Time // the next look; zero: one is under way

	fired prometheus.Counter
	late  prometheus.Histogram
}

// NewRunner makes a runner; Run starts it. Events go to relay, which wakes the runner when a transaction that was
// handed over to it has set a timer; a nil relay takes over nothing: the events wait in the outbox.
func NewRunner(pool *pgxpool.Pool, relay *outbox.Relay, cfg Config) *Runner {
	cfg.Poll = cmp.Or(cfg.Poll, 500*time.Millisecond)
	cfg.Batch = cmp.Or(cfg.Batch, 1000)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{
		pool: pool, relay: relay, cfg: cfg, sooner: make(chan struct{}, 1),
		fired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "converge_timers_fired_total", Help: "Timers whose event this instance has put into the outbox.",
		}),
		late: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "converge_timers_late_seconds", Help: "How long after it was due a timer was fired.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}),
	}
	if cfg.Metric != nil {
		cfg.Metric.MustRegister(r.fired, r.late)
	}
	relay.OnDue(r.wake)
	return r
}

// wake says that a timer was committed that is due so soon. It never blocks.
func (r *Runner) wake(in time.Duration) {
	if in >= r.cfg.Poll {
		return
	}
	r.mu.Lock()
	sooner := r.until.IsZero() || time.Now().Add(in).Before(r.until)
	r.mu.Unlock()
	if !sooner {
		return
	}
	select {
	case r.sooner <- struct{}{}:
	default:
	}
}

// Run fires timers until ctx ends, and then returns nil. Faults of the database are logged and retried: what is due
// meanwhile fires late.
func (r *Runner) Run(ctx context.Context) error {
	for {
		r.sleepUntil(time.Time{})
		wait, err := r.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			r.faults.Warn(ctx, r.cfg.Log, "fire", "timers not fired; trying again", "error", err)
			wait = r.cfg.Poll
		default:
			r.faults.Over(ctx, r.cfg.Log, "fire", "timers fire again")
		}
		r.sleepUntil(time.Now().Add(wait))
		sleep := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-sleep.C:
		case <-r.sooner:
		}
		sleep.Stop()
	}
}

func (r *Runner) sleepUntil(t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = t
}

// look fires what is due, and returns when to look again.
func (r *Runner) look(ctx context.Context) (wait time.Duration, err error) {
	wait, err = r.next(ctx)
	if err != nil || wait > 0 {
		return wait, err
	}
	n, err := r.Fire(ctx)
	if n > 0 {
		return 0, err
	}
	return busyWait, err
}

// next is how long it is until the first timer is due, and Config.Poll at most.
func (r *Runner) next(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, fireWithin)
	defer cancel()
	seconds, ok, err := untilNext(ctx, r.pool)
	if err != nil || ok && seconds <= r.cfg.Poll.Seconds() {
		return time.Duration(seconds * float64(time.Second)), err
	}
	return r.cfg.Poll, nil
}

// queryer is what looking at the timers needs of a pool.
type queryer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// untilNext is how many seconds it is until the first timer is due; ok is false where there is none.
func untilNext(ctx context.Context, db queryer) (seconds float64, ok bool, err error) {
	err = db.QueryRow(ctx, nextSQL).Scan(&seconds)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("look for the next timer: %w", err)
	}
	return seconds, true, nil
}

// Overdue is for how long the first timer of a database has been due and has not fired; 0 while none is. It costs one
// look into an index.
func Overdue(ctx context.Context, db queryer) (time.Duration, error) {
	seconds, _, err := untilNext(ctx, db)
	return time.Duration(max(0, -seconds) * float64(time.Second)), err
}

// Fire fires all timers that are due, a transaction for each batch, and returns how many.
func (r *Runner) Fire(ctx context.Context) (int, error) {
	total := 0
	for from := (time.Time{}); ; {
		n, last, err := r.fire(ctx, from)
		total += n
		if err != nil || n < r.cfg.Batch {
			return total, err
		}
		from = last // what was deleted before is not walked over again
	}
}

// due is a timer whose time has come.
type due struct {
	at   time.Time
	late float64 // seconds
	outbox.Message
}

// fire fires the first batch of what is due since from, in order. When it fails, nothing of it remains, or nobody
// knows: then the next look does.
func (r *Runner) fire(ctx context.Context, from time.Time) (n int, last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, fireWithin)
	defer cancel()
	var fired []due
	var handover *outbox.Handover
	err = pg.InTx(ctx, r.pool, func(tx pgx.Tx) (err error) {
		var take pgx.Batch
		take.Queue(lockSQL, lockKey)
		take.Queue(fireSQL, from, r.cfg.Batch).Query(func(rows pgx.Rows) (err error) {
			fired, err = pgx.CollectRows(rows, scanDue)
			return err
		})
		if err := tx.SendBatch(ctx, &take).Close(); err != nil {
			return err
		}
		slices.SortStableFunc(fired, func(x, y due) int { return x.at.Compare(y.at) })
		msgs := make([]outbox.Message, len(fired))
		for i := range fired {
			msgs[i] = fired[i].Message
		}
		var put pgx.Batch
		if handover, err = r.relay.Queue(&put, msgs); err != nil {
			return err
		}
		return pg.Defer(ctx, tx, &put)
	})
	handover.Done(err == nil)
	if err != nil {
		return 0, from, fmt.Errorf("fire timers: %w", err)
	}
	for i := range fired {
		r.late.Observe(fired[i].late)
		last = fired[i].at
	}
	r.fired.Add(float64(len(fired)))
	return len(fired), last, nil
}

func scanDue(row pgx.CollectableRow) (d due, err error) {
	var headers string
	if err := row.Scan(&d.at, &d.Topic, &d.Key, &d.Value, &headers, &d.late); err != nil {
		return due{}, err
	}
	if err := json.Unmarshal([]byte(headers), &d.Headers); err != nil {
		return due{}, fmt.Errorf("headers of the timer for %s: %w", d.Topic, err)
	}
	return d, nil
}
