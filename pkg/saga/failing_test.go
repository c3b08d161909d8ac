package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// BenchmarkFailing is what failing messages cost the others: 20,000 messages, delivered 500 at a time.
func BenchmarkFailing(b *testing.B) {
	errBad := errors.New("cannot handle this one")
	bad := func(m saga.Msg[asked]) bool { return m.Data.N < 0 }
	one := func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		if bad(m) {
			return nil, errBad
		}
		return work(ctx, tx, m)
	}
	set := func(blame bool) func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[asked]) ([]saga.Out, error) {
		return func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[asked]) ([]saga.Out, error) {
			var outs []saga.Out
			keys, ns := make([]string, len(msgs)), make([]int, len(msgs))
			for i, m := range msgs {
				if keys[i], ns[i] = m.Key, m.Data.N; bad(m) && blame {
					return nil, saga.Blame(m.Meta, errBad)
				}
				outs = append(outs, saga.Emit(m, answer, answered{m.Data.N})...)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO effects (key, n) SELECT * FROM unnest($1::text[], $2::int[]) AS m (key, n)`, keys, ns); err != nil {
				return nil, err
			}
			if slices.ContainsFunc(msgs, bad) {
				return nil, errBad
			}
			return outs, nil
		}
	}
	for name, route := range map[string]saga.Route{
		"On": saga.On(question, one, answer), "OnBatch": saga.OnBatch(question, set(false), answer), "OnBatchBlame": saga.OnBatch(question, set(true), answer),
	} {
		for _, percent := range []int{0, 1} {
			b.Run(fmt.Sprintf("%s/%d%%", name, percent), func(b *testing.B) {
				base := sagatest.Migrate()
				db := pgtest.New(b, "saga", func(ctx context.Context, pool *pgxpool.Pool) error {
					if err := base(ctx, pool); err != nil {
						return err
					}
					_, err := pool.Exec(ctx, `CREATE TABLE effects (seq bigserial, key text, n int)`)
					return err
				})
				svc := saga.Service{Name: "svc", Routes: []saga.Route{route}}
				messages := 0
				for b.Loop() {
					b.StopTimer()
					records := make([]broker.Record, 20000)
					for i := range records {
						n := i + 1
						if percent > 0 && i%(100/percent) == 37 {
							n = -1
						}
						r, err := saga.Encode("bench", saga.New(b.Context(), question, fmt.Sprint("k", i), asked{n}))
						if err != nil {
							b.Fatal(err)
						}
						r.Offset = int64(i)
						records[i] = r
					}
					b.StartTimer()
					if err := saga.Consume(b.Context(), svc, saga.Config{DB: db, Backoff: time.Millisecond}, records, 500); err != nil {
						b.Fatal(err)
					}
					messages += len(records)
				}
				b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// Finding the one message that a batch fails at, of which its error says nothing, takes a few tries, and not one of
// each message.
func TestFindingWhatFailsTakesFewTries(t *testing.T) {
	t.Parallel()
	for at, tries := range map[int]int{0: 13, 31: 9, 32: 13, 63: 9} {
		db := database(t)
		calls, handed := 0, 0
		handler := func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[asked]) ([]saga.Out, error) {
			calls, handed = calls+1, handed+len(msgs)
			for _, m := range msgs {
				if _, err := work(ctx, tx, m); err != nil {
					return nil, err
				}
			}
			if slices.ContainsFunc(msgs, func(m saga.Msg[asked]) bool { return m.Data.N < 0 }) {
				return nil, saga.Permanent(errors.New("cannot handle this one"))
			}
			return nil, nil
		}
		records := make([]broker.Record, 64)
		for i := range records {
			n := i + 1
			if i == at {
				n = -1
			}
			r, err := saga.Encode("test", saga.New(t.Context(), question, fmt.Sprint("k", i), asked{n}))
			if err != nil {
				t.Fatal(err)
			}
			r.Offset = int64(i)
			records[i] = r
		}
		svc := saga.Service{Name: "svc", Routes: []saga.Route{saga.OnBatch(question, handler, answer)}}
		if err := saga.Consume(t.Context(), svc, saga.Config{DB: db}, records, len(records)); err != nil {
			t.Fatal(err)
		}
		// All once, in two steps, and then of halves the first: where that passes, the other is known to fail.
		if calls > tries || handed > 3*64 {
			t.Errorf("the message at %d: %d calls with %d messages in all, want at most %d with 192", at, calls, handed, tries)
		}
		if n := len(effects(t, db)); n != 63 {
			t.Errorf("the message at %d: %d of the others took effect, want 63", at, n)
		}
	}
}
