package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/internal/quiet"
)

// Producer is the broker, as the relay needs it. It is *broker.Client.
type Producer interface {
	// Produce publishes records in order per partition: nil for each one that is acknowledged, whose Partition and
	// Offset it sets.
	Produce(ctx context.Context, records []broker.Record) []error
	// Ends returns where each partition's log ends, or where it was cut since its leader had the epoch, where it can be
	// known.
	Ends(ctx context.Context, epochs map[broker.TopicPartition]int32) (map[broker.TopicPartition]broker.End, error)
	// Partitions is how many partitions a topic has, 0 where it is not known.
	Partitions(ctx context.Context, topic string) (int, error)
}

// Config tunes a Relay. Zero values mean the defaults.
type Config struct {
	Batch  int           // rows read and published at once; default 1000
	Poll   time.Duration // how long to wait for a wake-up before looking anyway; default 1 s
	Flush  time.Duration // how long to go on publishing after the stop; default 4 s
	Retry  time.Duration // how long a partition that refused a record rests at most; default 1 s
	Lease  time.Duration // how long a leader that is frozen, or whose database does not answer, goes on holding up the others; default 5 s
	Keep   time.Duration // how long published events are kept at least, in case Kafka loses them; default 60 s; negative: not at all
	Log    *slog.Logger
	Metric prometheus.Registerer // nil: none
}

// workWithin bounds each statement that publishing needs. It is long: a database that does not answer at all is noticed
// by the session that holds the lock, within [Config.Lease].
const workWithin = 30 * time.Second

// lockKey is the advisory lock that makes one relay the leader of its outbox.
const lockKey = 0x6f7574626f78 // "outbox"

// Advisory locks are the database's: an outbox in another schema than public has one of its own, or its events would
// wait for ever for a leader that looks at another table.
const leadSQL = `SELECT pg_try_advisory_lock(CASE relnamespace::regnamespace::text WHEN 'public' THEN $1::bigint
	ELSE hashtextextended(relnamespace::regnamespace::text, $1::bigint) END)
FROM pg_class WHERE oid = 'outbox'::regclass`

const channel = "outbox"

// A delete that a crash of the database undoes publishes an event again, which is allowed; waiting for the disk is not
// needed. The one join of the leader's statements is of two lists without an index.
const setUpSQL = `SELECT set_config('synchronous_commit', 'off', false), set_config('enable_hashjoin', 'on', false),
	set_config('enable_nestloop', 'off', false)`

const outage = "database" // the one fault of its kind

// Relay publishes a database's outbox. Any number may run on one database; an advisory lock makes one of them the
// leader, and order needs that: two relays that shared the rows (SKIP LOCKED) would overtake each other. The others
// wait to succeed it, and pass wake-ups on to it.
//
// The leader publishes what transactions of its own process hand over (see [Relay.Queue]), in the order of ids, while
// no id is missing; otherwise it reads the rows that are there. It deletes those the broker acknowledged a little
// later. A crash in between publishes them again: at least once. It keeps no cursor: a sequence has gaps that commit
// late.
type Relay struct {
	pool     *pgxpool.Pool
	producer Producer
	cfg      Config
	wake     chan struct{}
	handed   handed
	onDue    func(in time.Duration) // see [Relay.OnDue]; nil: nobody is told
	outages  quiet.Log

	published   prometheus.Counter
	republished prometheus.Counter
	unread      prometheus.Counter
	failed      prometheus.Counter
	batch       prometheus.Histogram
	leading     prometheus.Gauge
}

// NewRelay makes a relay; Run starts it.
func NewRelay(pool *pgxpool.Pool, producer Producer, cfg Config) *Relay {
	cfg.Poll = cmp.Or(cfg.Poll, time.Second)
	cfg.Flush = cmp.Or(cfg.Flush, 4*time.Second)
	cfg.Retry = cmp.Or(cfg.Retry, time.Second)
	cfg.Lease = cmp.Or(cfg.Lease, 5*time.Second)
	cfg.Keep = cmp.Or(cfg.Keep, time.Minute)
	cfg.Batch = cmp.Or(cfg.Batch, 1000)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Relay{
		pool: pool, producer: producer, cfg: cfg, wake: make(chan struct{}, 1),
		published:   prometheus.NewCounter(prometheus.CounterOpts{Name: "converge_outbox_published_total", Help: "Events published and acknowledged by the broker."}),
		unread:      prometheus.NewCounter(prometheus.CounterOpts{Name: "converge_outbox_handed_over_total", Help: "Events among the published ones that were handed over in memory, and not read from the table."}),
		republished: prometheus.NewCounter(prometheus.CounterOpts{Name: "converge_outbox_republished_total", Help: "Events put back into the outbox because Kafka lost them after it had acknowledged them."}),
		failed:      prometheus.NewCounter(prometheus.CounterOpts{Name: "converge_outbox_publish_errors_total", Help: "Attempts to publish an event that failed; the event stays in the outbox."}),
		batch:       prometheus.NewHistogram(prometheus.HistogramOpts{Name: "converge_outbox_batch_size", Help: "Events published at once.", Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		leading:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "converge_outbox_leader", Help: "1 when this instance publishes its database's outbox."}),
	}
	if cfg.Metric != nil {
		cfg.Metric.MustRegister(r.published, r.republished, r.unread, r.failed, r.batch, r.leading)
	}
	return r
}

// Wake tells the relay that a transaction with events was committed that it was not handed. It never blocks. Without it
// the events leave at the next poll.
func (r *Relay) Wake() {
	if r != nil {
		r.handed.lookSoon()
		r.signal()
	}
}

func (r *Relay) signal() { signal(r.wake) }

// signal leaves a sign for whoever receives from c, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run publishes until ctx ends, then goes on until the outbox is empty or Config.Flush has passed. Faults of the
// database or the broker are logged and retried; Run returns only at the end, with nil. Without a pool it fails at
// once.
func (r *Relay) Run(ctx context.Context) error {
	if r.pool == nil {
		return errors.New("the outbox relay has no database: NewRelay was given a nil pool")
	}
	for ctx.Err() == nil {
		err := r.campaign(ctx)
		if err != nil && ctx.Err() == nil {
			r.outages.Warn(ctx, r.cfg.Log, outage, "outbox relay lost its database; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.cfg.Poll / 4):
		}
	}
	return nil
}

// ask bounds a question that a database which answers at all answers at once.
func (r *Relay) ask(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Lease)
	defer cancel()
	return do(ctx)
}

// campaign holds one connection, whose session holds the lock or keeps asking for it. Asking in a loop, and not in one
// blocking statement, matters: a waiting statement holds a snapshot, and vacuum could not clean up behind it.
func (r *Relay) campaign(ctx context.Context) error {
	conn, err := r.detached(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	for {
		var leader bool
		if err := r.ask(ctx, func(ctx context.Context) error {
			return conn.QueryRow(ctx, leadSQL, lockKey).Scan(&leader)
		}); err != nil {
			return fmt.Errorf("ask for leadership: %w", err)
		}
		if leader {
			return r.lead(ctx, conn)
		}
		woken := false
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.cfg.Poll / 4):
		case <-r.wake:
			woken = true
		}
		if woken { // a transaction of its own: NOTIFY inside business transactions would serialise their commits
			if err := r.exec(ctx, conn, `NOTIFY `+channel); err != nil {
				return fmt.Errorf("pass on a wake-up: %w", err)
			}
		}
	}
}

// lead publishes for as long as the session lives that holds the lock.
func (r *Relay) lead(ctx context.Context, lock *pgx.Conn) error {
	work, err := r.detached(ctx)
	if err != nil {
		return err
	}
	defer closeConn(work)
	if err := r.exec(ctx, work, setUpSQL); err != nil {
		return err
	}
	// A process that is frozen keeps its sessions, and with them the lock, so the server ends one that does not stir.
	// What the frozen one still publishes when it wakes, the next leader has published: duplicates.
	lease := strconv.FormatInt(r.cfg.Lease.Milliseconds(), 10)
	if err := r.exec(ctx, lock, `SELECT set_config('idle_session_timeout', $1, false)`, lease); err != nil {
		return err
	}
	if err := r.exec(ctx, lock, `LISTEN `+channel); err != nil {
		return err
	}
	r.cfg.Log.Info("outbox relay leads")
	r.leading.Set(1)
	defer r.leading.Set(0)

	// The session that holds the lock also hears the other instances' wake-ups. When it breaks, the lock may be
	// another's: stop at once.
	live, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		stirred := time.Now()
		for {
			if err := r.listen(live, lock, &stirred); err != nil {
				stop(fmt.Errorf("the leader's session ended: %w", err))
				return
			}
		}
	}()
	defer func() { stop(nil); <-heard }()

	// A server that hangs must not hold up the stop.
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(r.cfg.Flush+500*time.Millisecond, func() { stop(errors.New("flush time is over")) })
	})()

	r.handed.begin()
	defer r.handed.end()
	p := newPump(r, work)
	if err := p.learn(live); err != nil {
		return err
	}
	r.outages.Over(ctx, r.cfg.Log, outage, "outbox relay has its database again")
	var beside sync.WaitGroup
	defer func() { stop(nil); beside.Wait() }()
	beside.Go(func() { p.watch(live) })
	return p.run(ctx, live, &beside)
}

// exec is ask for a statement without rows.
func (r *Relay) exec(ctx context.Context, conn *pgx.Conn, sql string, args ...any) error {
	return r.ask(ctx, func(ctx context.Context) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// listen waits for another instance's wake-up, and stirs when it last did so a while ago: to be woken is not to stir.
func (r *Relay) listen(ctx context.Context, lock *pgx.Conn, stirred *time.Time) error {
	every := r.cfg.Lease / 4
	wait, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	_, err := lock.WaitForNotification(wait)
	switch {
	case err == nil:
		r.Wake()
	case wait.Err() == nil || ctx.Err() != nil || lock.IsClosed():
		return err
	}
	if time.Since(*stirred) < every {
		return nil
	}
	*stirred = time.Now()
	return r.ask(ctx, lock.Ping)
}

// detached takes a connection out of the pool for good: it ends with the leadership it serves.
func (r *Relay) detached(ctx context.Context) (*pgx.Conn, error) {
	var conn *pgx.Conn
	err := r.ask(ctx, func(ctx context.Context) error {
		c, err := r.pool.Acquire(ctx)
		if err == nil {
			conn = c.Hijack()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // closed either way
}
