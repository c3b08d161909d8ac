package saga_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// cut is a database to which the way is cut after so many transactions, and which then ends the caller's context.
type cut struct {
	*pgxpool.Pool
	after int
	stop  context.CancelFunc
}

func (c *cut) Begin(ctx context.Context) (pgx.Tx, error) {
	if c.after--; c.after < 0 {
		c.stop()
		return nil, net.ErrClosed
	}
	return c.Pool.Begin(ctx)
}

// Whatever fails and wherever it stops, the offset to go on from passes no message that was neither handled, buried nor
// kept in the database, and effects stay in order per key, once.
func TestOffsetsPassNothingUnhandled(t *testing.T) {
	t.Parallel()
	db := database(t)
	var run atomic.Int64
	rapid.Check(t, func(t *rapid.T) {
		name := fmt.Sprint("svc", run.Add(1))
		ctx := context.Background()
		if _, err := db.Exec(ctx, `TRUNCATE effects, outbox, inbox, inbox_parked`); err != nil {
			t.Fatal(err)
		}
		fails := map[int]int{} // how often a message fails
		svc := saga.Service{Name: name, Routes: []saga.Route{saga.On(question, func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
			if fails[m.Data.N] > 0 {
				fails[m.Data.N]--
				return nil, errors.New("no")
			}
			return work(ctx, tx, m)
		}, answer)}}
		tp := broker.TopicPartition{Topic: "question"}
		way := &cut{Pool: db}
		cfg := saga.Config{DB: way, Attempts: 3, Backoff: time.Nanosecond, MaxWaiting: rapid.IntRange(1, 20).Draw(t, "waiting"),
			Followers: saga.Followers(rapid.IntRange(0, 1).Draw(t, "followers"))}
		s := saga.NewSession(svc, cfg)
		var log []broker.Record
		next, committed := 0, 0
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch step := rapid.SampledFrom([]string{"handle", "handle", "handle", "fault", "leave", "crash"}).Draw(t, "step"); step {
			case "handle", "fault":
				for range rapid.IntRange(0, 6).Draw(t, "new") {
					n := len(log) + 1
					fails[n] = rapid.SampledFrom([]int{0, 0, 1, 2, 9}).Draw(t, "fails")
					r, err := saga.Encode("test", saga.New(ctx, question, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key"), asked{n}))
					if err != nil {
						t.Fatal(err)
					}
					log = append(log, at(n-1, r))
				}
				on, stop := context.WithCancel(ctx)
				way.after, way.stop = 1<<30, stop
				if step == "fault" {
					way.after = rapid.IntRange(0, 3).Draw(t, "after")
				}
				err := s.Handle(on, log[next:])
				stop()
				if next = len(log); err != nil { // the last commit, and another member
					committed = check(t, db, s, tp, log, committed)
					s, next = saga.NewSession(svc, cfg), committed
				}
			case "leave":
				committed = check(t, db, s, tp, log, committed)
				s.Leave(tp)
				next = committed
			case "crash":
				s, next = saga.NewSession(svc, cfg), committed
			}
			committed = check(t, db, s, tp, log, committed)
		}
		way.after = 1 << 30
		_ = s.Adopt(ctx, tp)
		if err := s.Handle(ctx, log[next:]); err != nil {
			t.Fatal(err)
		}
		for count, _, rows := s.Waiting(); count+rows > 0; count, _, rows = s.Waiting() {
			if err := s.Handle(ctx, nil); err != nil {
				t.Fatal(err)
			}
		}
		if committed = check(t, db, s, tp, log, committed); committed != len(log) && len(log) > 0 {
			t.Errorf("at the end the offset is %d of %d", committed, len(log))
		}
		var parked int
		if err := db.QueryRow(ctx, `SELECT count(*) FROM inbox_parked`).Scan(&parked); err != nil || parked > 0 {
			t.Errorf("%d messages are still parked at the end, %v", parked, err)
		}
	})
}

// check returns the offset to go on from.
func check(t *rapid.T, db *pgxpool.Pool, s *saga.Session, tp broker.TopicPartition, log []broker.Record, was int) int {
	offset, ok := s.Committed()[tp]
	if !ok {
		return was
	}
	numbers := func(query string) []int {
		rows, _ := db.Query(context.Background(), query)
		out, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	settled := numbers(`SELECT n FROM effects UNION ALL SELECT (convert_from(value, 'UTF8')::json ->> 'n')::int FROM outbox WHERE topic LIKE '%.dlq'`)
	parked := numbers(`SELECT ("offset" + 1)::int FROM inbox_parked`) // one that was handled may be, too, until it is recognised
	for n := 1; n <= int(offset); n++ {
		if !slices.Contains(settled, n) && !slices.Contains(parked, n) {
			t.Fatalf("LOST: the offset is %d, and message %d of %s was neither handled nor buried", offset, n, log[n-1].Key)
		}
	}
	slices.Sort(settled)
	if len(slices.Compact(slices.Clone(settled))) != len(settled) {
		t.Fatalf("settled twice: %v", settled)
	}
	if back := numbers(`SELECT n FROM (SELECT n, n < lag(n) OVER (PARTITION BY key ORDER BY seq) AS back FROM effects) AS e WHERE back`); len(back) > 0 {
		t.Fatalf("effects out of order: %v", back)
	}
	return int(offset)
}
