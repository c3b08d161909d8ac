package readside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// Generation is one build of a read side.
type Generation struct {
	ID         int64      `json:"generation"`
	State      string     `json:"state" enum:"SERVING,BUILDING,RETIRED,FAILED"`
	Records    int64      `json:"records" doc:"read from the topics to build it"`
	LeftOut    int64      `json:"leftOut" doc:"of these, the ones that no code could handle"`
	Error      string     `json:"error,omitempty" doc:"why it failed"`
	StartedAt  time.Time  `json:"startedAt"`
	FinishedAt *time.Time `json:"finishedAt,omitempty"`
}

var (
	// ErrRunning says that a rebuild is under way, here or at another instance.
	ErrRunning = errors.New("a rebuild is under way")
	// errOvertaken says that the generation is no longer the one that is being built.
	errOvertaken = errors.New("the generation was given up: its builder lost its connection, and another took over")
)

// TrimmedError says that the topics no longer hold their beginnings: what is built from them would be less than what
// serves.
type TrimmedError struct{ Topics []string }

func (e *TrimmedError) Error() string {
	return fmt.Sprintf("the beginning of %v is gone from Kafka, by retention or because somebody deleted it", e.Topics)
}

const (
	lockKey = 0x72656164 // "read": held by who builds

	generationColumns = `id, state, records, left_out, error, started_at, finished_at`

	findSQL = `SELECT ` + generationColumns + ` FROM generations WHERE id = $1`

	beginSQL = `INSERT INTO generations (state) VALUES ('BUILDING') RETURNING ` + generationColumns

	progressSQL = `UPDATE generations SET records = records + $2 + $3, left_out = left_out + $3 WHERE id = $1 AND state = 'BUILDING'`

	abandonSQL = `UPDATE generations SET state = 'FAILED', error = $1, finished_at = now() WHERE state = 'BUILDING' AND ($2 = 0 OR id = $2)`

	goneSQL = `SELECT id FROM generations WHERE state IN ('RETIRED', 'FAILED') ORDER BY id`

	retireSQL = `UPDATE generations SET state = 'RETIRED' WHERE state = 'SERVING'`

	serveSQL = `UPDATE generations SET state = 'SERVING', finished_at = now() WHERE id = $1 AND state = 'BUILDING'`
)

// Rebuilder builds a side anew from the topics.
//
// First the new generation is noted, and from the commit of that on, whatever comes from the topics goes to both. Then
// the topics are read from their beginnings to where they end by now. Then the new generation has everything that the
// old one has, and one transaction makes it the one that serves. What goes wrong before that leaves the old one
// serving.
type Rebuilder struct {
	Side
	DB     *pgxpool.Pool
	Broker *broker.Client
	Log    *slog.Logger
	Go     func(func(context.Context) error) // runs what goes on behind a request
}

// Start begins a rebuild and returns while it goes on. Only one can go on at a time: [ErrRunning]. If the topics no
// longer hold all there was, it is a [TrimmedError], unless partial says that what they hold will do.
func (r *Rebuilder) Start(ctx context.Context, partial bool) (Generation, error) {
	if !partial {
		gone, err := r.Broker.Trimmed(ctx, r.Service().ReactsTo()...)
		if err != nil {
			return Generation{}, err
		}
		if len(gone) > 0 {
			return Generation{}, &TrimmedError{gone}
		}
	}
	lock, err := r.lock(ctx)
	if err != nil {
		return Generation{}, err
	}
	var g Generation
	err = pg.InTx(ctx, r.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, abandonSQL, "its builder ended", 0); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, beginSQL) // the error surfaces in the collector
		g, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Generation])
		return err
	})
	if err != nil {
		r.unlock(lock)
		return Generation{}, fmt.Errorf("begin a generation of %s: %w", r.Name, err)
	}
	r.Go(func(ctx context.Context) error {
		defer r.unlock(lock)
		r.run(ctx, g.ID)
		return nil
	})
	return g, nil
}

// Recover gives up what an earlier process left half built, and deletes its rows. Run it once, at the start.
func (r *Rebuilder) Recover(ctx context.Context) error {
	lock, err := r.lock(ctx)
	if err == nil {
		defer r.unlock(lock)
		if _, err = r.DB.Exec(ctx, abandonSQL, "its builder ended", 0); err == nil {
			err = r.sweep(ctx)
		}
	}
	if err != nil && !errors.Is(err, ErrRunning) && ctx.Err() == nil {
		r.Log.Warn("what an earlier rebuild left is still there; the next one takes it away", "error", err)
	}
	return nil
}

// lock makes this the one builder, for as long as the connection lives.
func (r *Rebuilder) lock(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := r.DB.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var mine bool
	if err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lockKey).Scan(&mine); err == nil && !mine {
		err = ErrRunning
	}
	if err != nil {
		conn.Release()
		return nil, err
	}
	return conn, nil
}

// unlock ends the connection, and with it the lock, whatever state it is in.
func (r *Rebuilder) unlock(lock *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = lock.Conn().Close(ctx) // the server ends it if we cannot
	lock.Release()
}

func (r *Rebuilder) run(ctx context.Context, id int64) {
	began := time.Now()
	r.Log.Info("rebuild began", "generation", id)
	err := r.build(ctx, id)
	if err != nil {
		r.Log.Error("rebuild failed; the generation before it goes on serving", "generation", id, "error", err)
		err = r.abandon(ctx, id, err)
	} else {
		r.Log.Info("rebuild serves", "generation", id, "took", time.Since(began).String())
	}
	if err == nil {
		err = r.sweep(ctx)
	}
	if err != nil && ctx.Err() == nil {
		r.Log.Warn("rows of other generations are still there; the next start or rebuild takes them away", "error", err)
	}
}

// abandon gives a generation up, for the reason. The database may be what failed, so it tries until that is back or ctx
// ends; at a stop it tries once. What is not given up then, the next start does.
func (r *Rebuilder) abandon(ctx context.Context, id int64, why error) error {
	try := func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_, err := r.DB.Exec(ctx, abandonSQL, why.Error(), id)
		return struct{}{}, err
	}
	_, err := try()
	if err != nil {
		_, err = backoff.Retry(ctx, try, backoff.WithMaxElapsedTime(0))
	}
	return err
}

// batch is how many records are replayed in a transaction, and rows deleted.
const batch = 1000

func (r *Rebuilder) build(ctx context.Context, id int64) error {
	if err := r.sweep(ctx); err != nil { // of an earlier one that died
		return err
	}
	svc := saga.Service{Name: r.Name, Routes: r.Routes(Target(id))}
	var records []broker.Record
	flush := func() error {
		err := r.replay(ctx, id, svc, records)
		records = records[:0]
		return err
	}
	for _, topic := range svc.ReactsTo() {
		err := r.Broker.Scan(ctx, topic, func(rec broker.Record) error {
			if records = append(records, rec); len(records) < batch {
				return nil
			}
			return flush()
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
	}
	return pg.InTx(ctx, r.DB, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, retireSQL); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, serveSQL, id)
		if err == nil && tag.RowsAffected() == 0 {
			err = errOvertaken
		}
		return err
	})
}

// replay does one batch. Faults of the database are waited out for a while; what lives on in the group may have locked
// rows in another order, so a deadlock is one of them.
func (r *Rebuilder) replay(ctx context.Context, id int64, svc saga.Service, records []broker.Record) error {
	if len(records) == 0 {
		return nil
	}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := saga.Replay(ctx, r.DB, svc, r.Log, records, func(tx pgx.Tx, handled, left int) error {
			tag, err := tx.Exec(ctx, progressSQL, id, handled, left)
			if err == nil && tag.RowsAffected() == 0 {
				err = errOvertaken
			}
			return err
		})
		if err != nil && !pg.Transient(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(time.Minute))
	return err
}

// sweep deletes the rows of generations that are neither serving nor being built, in steps.
func (r *Rebuilder) sweep(ctx context.Context) error {
	rows, _ := r.DB.Query(ctx, goneSQL) // the error surfaces in the collector
	gone, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("look for old generations of %s: %w", r.Name, err)
	}
	for _, table := range r.Tables {
		name := pgx.Identifier{table}.Sanitize()
		sweepSQL := `DELETE FROM ` + name + ` WHERE ctid = ANY (ARRAY(SELECT ctid FROM ` + name + ` WHERE generation = $1 LIMIT $2))`
		for _, id := range gone {
			for left := int64(1); left > 0; {
				tag, err := r.DB.Exec(ctx, sweepSQL, id, batch)
				if err != nil {
					return fmt.Errorf("delete generation %d of %s: %w", id, table, err)
				}
				left = tag.RowsAffected()
			}
		}
	}
	return nil
}

// Find returns a generation, if there was such a one.
func (r *Rebuilder) Find(ctx context.Context, id int64) (Generation, bool, error) {
	rows, _ := r.DB.Query(ctx, findSQL, id) // the error surfaces in the collector
	g, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Generation])
	if errors.Is(err, pgx.ErrNoRows) {
		return g, false, nil
	}
	return g, err == nil, err
}
