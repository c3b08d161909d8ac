package saga_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type asked struct {
	N int `json:"n"`
}

func (a asked) Validate() error {
	if a.N == 0 {
		return errors.New("n is missing")
	}
	return nil
}

type answered struct {
	N int `json:"n"`
}

var (
	question = saga.NewTopic[asked]("question")
	answer   = saga.NewTopic[answered]("answer")
)

// database has a table of effects: one row for every time a handler's work was committed.
func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	base := sagatest.Migrate()
	return pgtest.New(t, "saga", func(ctx context.Context, pool *pgxpool.Pool) error {
		if err := base(ctx, pool); err != nil {
			return err
		}
		_, err := pool.Exec(ctx, `CREATE TABLE effects (seq bigserial, key text, n int)`)
		return err
	})
}

func work(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
	if _, err := tx.Exec(ctx, `INSERT INTO effects (key, n) VALUES ($1, $2)`, m.Key, m.Data.N); err != nil {
		return nil, err
	}
	return saga.Emit(m, answer, answered{m.Data.N}), nil
}

func service(handler func(context.Context, pgx.Tx, saga.Msg[asked]) ([]saga.Out, error)) saga.Service {
	return saga.Service{Name: "svc", Routes: []saga.Route{saga.On(question, handler, answer)}}
}

func effects(t *testing.T, db *pgxpool.Pool) []string {
	t.Helper()
	rows, _ := db.Query(t.Context(), `SELECT key || '=' || n FROM effects ORDER BY seq`)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func ask(t *testing.T, key string, n int) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), question, key, asked{n}))
}

// dead returns the reasons of the dead letters among the records.
func dead(t *testing.T, records []broker.Record) []saga.DeadLetter {
	t.Helper()
	var out []saga.DeadLetter
	for _, r := range records {
		if strings.HasSuffix(r.Topic, ".dlq") {
			d, err := saga.ParseDeadLetter(r)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, d)
		}
	}
	return out
}

func TestEffectOnce(t *testing.T) {
	t.Parallel()
	db := database(t)
	r := ask(t, "a", 1)
	first := sagatest.Deliver(t, db, service(work), r, r, ask(t, "b", 2))
	if got := effects(t, db); !slices.Equal(got, []string{"a=1", "b=2"}) {
		t.Fatalf("effects %v", got)
	}
	if again := sagatest.Deliver(t, db, service(work), r); len(again) != 0 || len(effects(t, db)) != 2 {
		t.Fatalf("a second delivery emitted %d events and left %v", len(again), effects(t, db))
	}
	if len(first) != 2 {
		t.Fatalf("emitted %d events, want 2", len(first))
	}
	if data := sagatest.Decode(t, answer, first[0]); data.N != 1 || string(first[0].Key) != "a" {
		t.Errorf("emitted %s %+v", first[0].Key, data)
	}
}

// Whatever batch a message is in, what it causes has the same ids: consumers downstream recognise a replay.
func TestReplayGivesTheSameIDs(t *testing.T) {
	t.Parallel()
	a, b := ask(t, "a", 1), ask(t, "b", 2)
	ids := func(records ...[]broker.Record) map[string]string {
		db := database(t)
		out := map[string]string{}
		for _, batch := range records {
			for _, r := range sagatest.Deliver(t, db, service(work), batch...) {
				out[string(r.Key)] = r.Header("ce_id")
			}
		}
		return out
	}
	together, apart := ids([]broker.Record{a, b}), ids([]broker.Record{b}, []broker.Record{a})
	if fmt.Sprint(together) != fmt.Sprint(apart) || together["a"] == together["b"] {
		t.Errorf("ids %v in one batch, %v one by one", together, apart)
	}
}

func TestEnvelopeFollowsCloudEvents(t *testing.T) {
	t.Parallel()
	in := ask(t, "a", 1)
	out := sagatest.Deliver(t, database(t), service(work), in)[0]
	for header, want := range map[string]string{
		"ce_specversion": "1.0", "ce_type": "answer", "ce_source": "/svc", "ce_subject": "a", "content-type": "application/json",
		"ce_causationid": in.Header("ce_id"), "ce_correlationid": in.Header("ce_correlationid"),
	} {
		if got := out.Header(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	if in, out := strings.Split(in.Header("traceparent"), "-"), strings.Split(out.Header("traceparent"), "-"); len(out) != 4 || in[1] != out[1] || in[2] == out[2] {
		t.Errorf("traceparent %v after %v; want the same trace and another span", out, in)
	}
}

// One bad message costs only itself, whatever is bad about it.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	handler := func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		switch m.Key {
		case "permanent":
			return nil, saga.Permanent(errors.New("no such thing"))
		case "sql":
			_, err := tx.Exec(ctx, `SELECT 1/0`)
			return nil, err
		case "panic":
			panic("oh no")
		case "undeclared":
			return saga.Emit(m, question, asked{7}), nil
		}
		return work(ctx, tx, m)
	}
	raw := func(value string) broker.Record {
		return broker.Record{Topic: "question", Key: []byte("raw"), Value: []byte(value)}
	}
	for name, tt := range map[string]struct {
		record   broker.Record
		reason   string
		attempts int
	}{
		"broken JSON":         {raw(`{"n":`), "unexpected end of JSON", 1},
		"wrong type":          {raw(`{"n":"x"}`), "cannot unmarshal string", 1},
		"missing field":       {raw(`{}`), "n is missing", 1},
		"empty value":         {broker.Record{Topic: "question", Key: []byte("raw"), Value: []byte{}}, "unexpected end of JSON", 1},
		"not UTF-8":           {raw("{\"n\":1,\"s\":\"M\xfcller\"}"), "not UTF-8", 1},
		"repeated field":      {raw(`{"n":1,"n":2}`), `the field "n" occurs twice`, 1},
		"other letter case":   {raw(`{"N":1}`), `the field "N" has another letter case than "n"`, 1},
		"permanent":           {ask(t, "permanent", 1), "no such thing", 1},
		"SQL error":           {ask(t, "sql", 1), "division by zero", 3},
		"panic":               {ask(t, "panic", 1), "oh no", 3},
		"undeclared emission": {ask(t, "undeclared", 1), "does not declare", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			bad := tt.record
			bad.Partition, bad.Offset = 3, 41
			bad.Headers = append(slices.Clone(bad.Headers), broker.Header{Key: "mine", Value: []byte{0xff}})
			out := sagatest.Deliver(t, db, service(handler), ask(t, "a", 1), bad, ask(t, "b", 2))
			if got := effects(t, db); !slices.Equal(got, []string{"a=1", "b=2"}) {
				t.Errorf("effects %v, want those of the good messages", got)
			}
			letters := dead(t, out)
			if len(letters) != 1 {
				t.Fatalf("%d dead letters in %d records", len(letters), len(out))
			}
			d := letters[0]
			if !strings.Contains(d.Reason, tt.reason) || d.Attempts != tt.attempts || d.Group != "svc" || d.Topic != "question" || d.Partition != 3 || d.Offset != 41 {
				t.Errorf("dead letter %+v; want reason %q after %d attempts", d, tt.reason, tt.attempts)
			}
			if d.Record.Topic != "svc.dlq" || string(d.Record.Key) != string(bad.Key) || string(d.Record.Value) != string(bad.Value) || d.Record.Header("mine") != "\xff" {
				t.Errorf("the original did not survive: %+v", d.Record)
			}
			if again := sagatest.Deliver(t, db, service(handler), bad); len(again) != 0 {
				t.Errorf("a second delivery made %d more records", len(again))
			}
		})
	}
}

// A message that failed is tried again; those of its key wait for it, others do not.
func TestRetryHoldsOnlyItsKey(t *testing.T) {
	t.Parallel()
	db := database(t)
	var tries atomic.Int32
	handler := func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		if m.Key == "a" && m.Data.N == 1 && tries.Add(1) < 4 { // batch, alone, first retry fail
			return nil, errors.New("not yet")
		}
		return work(ctx, tx, m)
	}
	out := sagatest.Deliver(t, db, service(handler), ask(t, "a", 1), ask(t, "b", 1), ask(t, "a", 2), ask(t, "b", 2), ask(t, "a", 3))
	if got, want := effects(t, db), []string{"b=1", "b=2", "a=1", "a=2", "a=3"}; !slices.Equal(got, want) {
		t.Errorf("effects %v, want %v", got, want)
	}
	if len(dead(t, out)) != 0 {
		t.Error("there are dead letters")
	}
}

// A dead letter that comes back is handled once, by its group only.
func TestRedrive(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]broker.Record{
		"an event":                    ask(t, "a", 1),
		"typed into console producer": {Topic: "question", Key: []byte("a"), Value: []byte(`{"n":1}`), Partition: 2, Offset: 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := database(t)
			var fixed atomic.Bool
			var others atomic.Int32
			svc := service(func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
				if !fixed.Load() {
					return nil, saga.Permanent(errors.New("bug"))
				}
				return work(ctx, tx, m)
			})
			svc.Routes = append(svc.Routes, saga.On(question, func(ctx context.Context, _ pgx.Tx, _ saga.Msg[asked]) ([]saga.Out, error) {
				saga.AfterCommit(ctx, func() { others.Add(1) })
				return nil, nil
			}).Named("other"))
			letter := dead(t, sagatest.Deliver(t, db, svc, in))[0]
			letter.Record.Offset = 12
			fixed.Store(true)
			back, again := letter.Redrive(), letter.Redrive()
			back.Offset, again.Offset = 20, 21 // each has a place of its own in the log
			out := sagatest.Deliver(t, db, svc, back, again)
			out = append(out, sagatest.Deliver(t, db, svc, again)...)
			if got := effects(t, db); !slices.Equal(got, []string{"a=1"}) || len(out) != 1 {
				t.Errorf("effects %v, %d events; want one of each", got, len(out))
			}
			if others.Load() != 1 {
				t.Errorf("the other group handled the message %d times", others.Load())
			}
			if back.Topic != "question" || back.Header("dlq-reason") != "" || (in.Header("ce_id") != "" && back.Header("ce_id") != in.Header("ce_id")) {
				t.Errorf("redriven as %+v", back)
			}
		})
	}
}

// A fault of the infrastructure never makes a dead letter, however often it comes.
func TestFaultsAreTriedUntilTheyPass(t *testing.T) {
	t.Parallel()
	db := database(t)
	var tries atomic.Int32
	handler := func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		if tries.Add(1) <= 6 {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return nil, fmt.Errorf("look: %w", err)
		}
		return work(ctx, tx, m)
	}
	out := sagatest.Deliver(t, db, service(handler), ask(t, "a", 1))
	if len(dead(t, out)) != 0 || !slices.Equal(effects(t, db), []string{"a=1"}) {
		t.Errorf("after faults: %d dead letters, effects %v", len(dead(t, out)), effects(t, db))
	}
}

// Messages that are too many for the time of one transaction are handled all the same: one by one.
func TestBatchThatTakesTooLong(t *testing.T) {
	t.Parallel()
	db := database(t)
	handler := func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		if _, err := tx.Exec(ctx, `SELECT pg_sleep(0.4)`); err != nil {
			return nil, err
		}
		return work(ctx, tx, m)
	}
	cfg := saga.Config{DB: db, Timeout: 2 * time.Second}
	var polled []broker.Record
	var want []string
	for n := 1; n <= 8; n++ {
		polled, want = append(polled, ask(t, "a", n)), append(want, fmt.Sprintf("a=%d", n))
	}
	if err := saga.Deliver(t.Context(), service(handler), cfg, polled...); err != nil {
		t.Fatal(err)
	}
	if got := effects(t, db); !slices.Equal(got, want) {
		t.Errorf("effects %v, want %v", got, want)
	}
}

func TestAfterCommitRunsOnceAndOnlyThen(t *testing.T) {
	t.Parallel()
	db := database(t)
	var mu sync.Mutex
	var ran []int
	failed := false
	handler := func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		saga.AfterCommit(ctx, func() { mu.Lock(); defer mu.Unlock(); ran = append(ran, m.Data.N) })
		if m.Data.N == 2 && !failed {
			failed = true
			return nil, errors.New("once")
		}
		return nil, nil
	}
	sagatest.Deliver(t, db, service(handler), ask(t, "a", 1), ask(t, "b", 2))
	if slices.Sort(ran); !slices.Equal(ran, []int{1, 2}) {
		t.Errorf("hooks ran for %v, want for 1 and 2, once each", ran)
	}
}

func TestPublishIsAtomicWithItsTransaction(t *testing.T) {
	t.Parallel()
	db := database(t)
	sentinel := errors.New("no")
	for _, want := range []error{sentinel, nil} {
		err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
			if err := saga.Publish(t.Context(), tx, "svc", saga.New(t.Context(), question, "a", asked{1})); err != nil {
				return err
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Fatal(err)
		}
		waiting, err := outbox.Waiting(t.Context(), db, 10)
		if err != nil || (len(waiting) == 1) != (want == nil) {
			t.Errorf("transaction ended with %v and left %d events, %v", want, len(waiting), err)
		}
	}
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
		return saga.Publish(t.Context(), tx, "svc", saga.New(t.Context(), question, "a", asked{}))
	})
	if err == nil || !strings.Contains(err.Error(), "n is missing") {
		t.Errorf("an event that no consumer could read was published: %v", err)
	}
}

func TestWrongDeclarations(t *testing.T) {
	t.Parallel()
	route := saga.On(question, work, answer)
	for name, svc := range map[string]saga.Service{
		"no name":                   {Routes: []saga.Route{route}},
		"two handlers of one topic": {Name: "svc", Routes: []saga.Route{route, route}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := saga.Run(ctx, svc, saga.Config{}); err == nil {
			t.Errorf("%s: no error", name)
		}
		cancel()
	}
}

func TestMermaidDrawsWhatTheRoutesSay(t *testing.T) {
	t.Parallel()
	asker := saga.Service{Name: "asker", Publishes: []saga.AnyTopic{question}}
	want := `flowchart LR
    asker[asker]
    svc[svc]
    asker -- question --> svc
    svc -- answer --> answer_sink(( ))
`
	if got := saga.Mermaid(asker, service(work)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// FuzzEnvelope: no record that anyone can put on a topic makes a consumer panic, or fails in any way but as a dead
// letter.
func FuzzEnvelope(f *testing.F) {
	f.Add("k", `{"n":1}`, "ce_id", "0190c0de-0000-7000-8000-000000000000", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("", `{"n":`, "ce_time", "yesterday", "converge-redrive", "svc@")
	f.Add("\x00", "null", "ce_id", "\xff", "ce_correlationid", "x")
	f.Fuzz(func(t *testing.T, key, value, h1, v1, h2, v2 string) {
		r := broker.Record{Topic: "question", Key: []byte(key), Value: []byte(value), Headers: []broker.Header{{Key: h1, Value: []byte(v1)}, {Key: h2, Value: []byte(v2)}}}
		m, err := saga.Decode(question, r)
		if err == nil && m.Data.Validate() != nil {
			t.Errorf("decoded what is invalid: %+v", m)
		}
		again, _ := saga.Decode(question, r)
		if again.ID != m.ID {
			t.Errorf("the same record has the ids %s and %s", m.ID, again.ID)
		}
	})
}
