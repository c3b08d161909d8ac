package saga_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

type reminded struct {
	N int `json:"n"`
}

var (
	reminder = saga.NewTopic[reminded]("reminder")
	stop     = saga.NewTopic[asked]("stop")
)

// reminding is a service that sets a timer with each question, which stop cancels, and that has an effect when it
// fires.
func reminding() saga.Service {
	return saga.Service{Name: "svc", Routes: []saga.Route{
		saga.On(question, func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
			if m.Data.N == 13 {
				return nil, saga.Permanent(errors.New("no luck"))
			}
			outs := saga.After(time.Hour, saga.Emit(m, reminder, reminded{m.Data.N + 100})...)
			outs = append(outs, saga.Emit(m, reminder, reminded{m.Data.N})...)
			return append(outs, saga.Emit(m, answer, answered{m.Data.N})...), nil
		}, reminder, answer),
		saga.On(reminder, func(ctx context.Context, tx pgx.Tx, m saga.Msg[reminded]) ([]saga.Out, error) {
			_, err := tx.Exec(ctx, `INSERT INTO effects (key, n) VALUES ($1, $2)`, m.Key, m.Data.N)
			return nil, err
		}),
		saga.On(stop, func(_ context.Context, _ pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
			return saga.Cancel(reminder, m.Key), nil
		}, reminder).Named("stopping"),
	}}
}

// outline is records as "topic key value".
func outline(records []broker.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = fmt.Sprintf("%s %s %s", r.Topic, r.Key, r.Value)
	}
	return out
}

func wantRecords(t *testing.T, got []broker.Record, want ...string) {
	t.Helper()
	if got := outline(got); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func timers(t *testing.T, db *pgxpool.Pool) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM timers`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A timer fires after its time, once, and its event has its effect once: though the message that set it is delivered
// again, the event is published again after a crash, and the one that was emitted at once has the same topic and cause.
func TestTimerFiresOnce(t *testing.T) {
	t.Parallel()
	db, svc := database(t), reminding()
	began, in := time.Now(), ask(t, "a", 1)
	first := sagatest.Deliver(t, db, svc, in)
	wantRecords(t, first, `reminder a {"n":1}`, `answer a {"n":1}`)
	wantRecords(t, sagatest.Deliver(t, db, svc, in)) // delivered again
	wantRecords(t, sagatest.Elapse(t, db, 59*time.Minute))
	fired := sagatest.Elapse(t, db, time.Minute)
	wantRecords(t, fired, `reminder a {"n":101}`)
	wantRecords(t, sagatest.Deliver(t, db, svc, in)) // and again
	wantRecords(t, sagatest.Elapse(t, db, 24*time.Hour))

	sagatest.Deliver(t, db, svc, fired[0], first[0], fired[0])
	sagatest.Deliver(t, db, svc, fired[0])
	if got := effects(t, db); !slices.Equal(got, []string{"a=101", "a=1"}) {
		t.Errorf("effects %v", got)
	}

	for header, want := range map[string]string{
		"ce_causationid": in.Header("ce_id"), "ce_correlationid": in.Header("ce_correlationid"),
		"ce_subject": "a", "ce_source": "/svc", "ce_type": "reminder",
	} {
		if got := fired[0].Header(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	if trace := fired[0].Header("traceparent"); trace[:35] != in.Header("traceparent")[:35] {
		t.Errorf("the trace is %s after %s", trace, in.Header("traceparent"))
	}
	if due := saga.TimeOf(fired[0]); due.Before(began.Add(time.Hour)) || due.After(time.Now().Add(time.Hour)) {
		t.Errorf("it is of %s, and was set at %s", due, began)
	}
}

// A timer does not change the ids of the events beside it, and one that is set again by the same message, because the
// inbox is lost, has the id of before: consumers recognise its event.
func TestTimerIDs(t *testing.T) {
	t.Parallel()
	db, svc := database(t), reminding()
	in := ask(t, "a", 1)
	at := sagatest.Deliver(t, db, svc, in)
	fired := sagatest.Elapse(t, db, time.Hour)
	if _, err := db.Exec(t.Context(), `DELETE FROM inbox`); err != nil {
		t.Fatal(err)
	}
	again := sagatest.Deliver(t, db, svc, in)
	again = append(again, sagatest.Elapse(t, db, time.Hour)...)
	plain := service(func(_ context.Context, _ pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		return saga.Emit(m, answer, answered{1}), nil
	})
	beside := sagatest.Deliver(t, database(t), plain, in)
	ids := func(records ...broker.Record) (ids []string) {
		for _, r := range records {
			ids = append(ids, r.Header("ce_id"))
		}
		return ids
	}
	if got, want := ids(again...), ids(append(at, fired...)...); !slices.Equal(got, want) || got[0] == got[2] {
		t.Errorf("ids %q, before they were %q", got, want)
	}
	if got, want := ids(at[1]), ids(beside...); !slices.Equal(got, want) {
		t.Errorf("beside a timer an event has the id %q, alone %q", got, want)
	}
}

// Another consumer group of the service may cancel; what is set again begins anew; and the timers of messages that fail
// are not set.
func TestCancelATimer(t *testing.T) {
	t.Parallel()
	db, svc := database(t), reminding()
	stopped := sagatest.Record(t, saga.New(t.Context(), stop, "a", asked{1}))
	sagatest.Deliver(t, db, svc, stopped) // there is none
	out := sagatest.Deliver(t, db, svc, ask(t, "a", 1), ask(t, "b", 13), ask(t, "c", 3), ask(t, "b", 2))
	if d := dead(t, out); len(d) != 1 || !strings.Contains(d[0].Reason, "no luck") {
		t.Errorf("dead letters %v", d)
	}
	if n := timers(t, db); n != 3 {
		t.Errorf("%d timers are set, want 3", n)
	}
	sagatest.Deliver(t, db, svc, sagatest.Record(t, saga.New(t.Context(), stop, "a", asked{1})), ask(t, "c", 4))
	wantRecords(t, sagatest.Elapse(t, db, time.Hour), `reminder b {"n":102}`, `reminder c {"n":104}`)
	sagatest.Deliver(t, db, svc, sagatest.Record(t, saga.New(t.Context(), stop, "b", asked{1}))) // too late
}

// A request sets and cancels timers in its transaction.
func TestTimersOfARequest(t *testing.T) {
	t.Parallel()
	db := database(t)
	request := func(commit bool, outs ...saga.Out) {
		t.Helper()
		err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
			if err := saga.Publish(t.Context(), tx, "svc", outs...); err != nil {
				return err
			}
			if !commit {
				return errors.New("changed my mind")
			}
			return nil
		})
		if (err == nil) != commit {
			t.Fatal(err)
		}
	}
	remind := func(key string, n int) saga.Out { return saga.New(t.Context(), reminder, key, reminded{n}) }
	noon := time.Now().Add(time.Hour)
	a, b := remind("a", 1), remind("b", 2)
	request(true, append(saga.After(time.Hour, a, b), remind("c", 3))...)
	request(true, saga.At(noon.Add(-time.Minute), remind("d", 4).Keyed("e"))...)
	request(false, saga.Cancel(reminder, "a")...)
	request(true, saga.Cancel(reminder, "b")...)
	request(false, saga.After(0, remind("f", 6))...)
	wantRecords(t, sagatest.Drain(t, db), `reminder c {"n":3}`)
	fired := sagatest.Elapse(t, db, time.Hour)
	wantRecords(t, fired, `reminder e {"n":4}`, `reminder a {"n":1}`)
	if when := saga.TimeOf(fired[0]); !when.Equal(noon.Add(-time.Minute)) {
		t.Errorf("it is of %s, want a minute before %s", when, noon)
	}
	// Its id is the one that it was made with.
	made := sagatest.Record(t, a)
	for _, header := range []string{"ce_id", "ce_correlationid"} {
		if got := fired[1].Header(header); got != made.Header("ce_id") {
			t.Errorf("%s is %s, and it was made as %s", header, got, made.Header("ce_id"))
		}
	}
}

// Timers are held to the route's declaration, cancelled or set, and to the rules of events.
func TestBadTimers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		outs   func(m saga.Msg[asked]) []saga.Out
		reason string
	}{
		"undeclared": {func(m saga.Msg[asked]) []saga.Out {
			return saga.After(0, saga.Emit(m, reminder, reminded{1})...)
		}, "emits reminder, which its route does not declare"},
		"cancelled undeclared": {func(m saga.Msg[asked]) []saga.Out {
			return saga.Cancel(reminder, m.Key)
		}, "emits reminder, which its route does not declare"},
		"an id of its own": {func(saga.Msg[asked]) []saga.Out {
			return saga.After(0, saga.New(t.Context(), answer, "a", answered{1}))
		}, "answer with New"},
		"no cause": {func(saga.Msg[asked]) []saga.Out {
			return saga.After(0, saga.Out{Topic: "answer"})
		}, "without a cause"},
		"no JSON": {func(m saga.Msg[asked]) []saga.Out {
			out := saga.Emit(m, answer, answered{1})
			out[0].Data = func() {}
			return saga.After(0, out...)
		}, "unsupported type"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			svc := service(func(_ context.Context, _ pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) { return tt.outs(m), nil })
			if d := dead(t, sagatest.Deliver(t, db, svc, ask(t, "a", 1))); len(d) != 1 || !strings.Contains(d[0].Reason, tt.reason) {
				t.Errorf("dead letters %v", d)
			}
			if n := timers(t, db); n != 0 {
				t.Errorf("%d timers are set", n)
			}
		})
	}
	handler := func(_ context.Context, _ pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		return saga.After(0, saga.Emit(m, answer, answered{1})...), nil
	}
	db := database(t)
	left := 0
	err := saga.Replay(t.Context(), db, service(handler), slog.New(slog.DiscardHandler), []broker.Record{ask(t, "a", 1)},
		func(_ pgx.Tx, _, n int) error { left = n; return nil })
	if err != nil || left != 1 || timers(t, db) != 0 {
		t.Errorf("a replay: %v, %d left out, %d timers", err, left, timers(t, db))
	}
}
