package saga_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Events of one cause have ids of their own, in one transaction and in several: topic and place tell them apart.
func TestEventsOfOneCause(t *testing.T) {
	t.Parallel()
	cause := saga.Msg[asked]{Meta: saga.Meta{ID: uuid.Must(uuid.NewV7()), Key: "a"}}
	ids := func(outs ...saga.Out) (ids []string) {
		db := database(t)
		tx, err := db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(t.Context()) //nolint:errcheck // committed
		if err := saga.Publish(t.Context(), tx, "svc", outs...); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range sagatest.Drain(t, db) {
			ids = append(ids, r.Header("ce_id"))
		}
		return ids
	}
	a, b := saga.Emit(cause, answer, answered{1}), saga.Emit(cause, question, asked{1})
	together := ids(slices.Concat(a, b, a)...)
	distinct := slices.Compact(slices.Sorted(slices.Values(together)))
	if len(distinct) != 3 {
		t.Errorf("three events of one transaction have the ids %v", together)
	}
	if apart := append(ids(b...), ids(a...)...); apart[0] != together[1] || apart[1] != together[0] || apart[0] == apart[1] {
		t.Errorf("in transactions of their own they have the ids %v, together %v", apart, together)
	}
}

// An event that was made by neither New nor Emit has no id of its own: it is refused wherever it could leave.
func TestEventWithoutACause(t *testing.T) {
	t.Parallel()
	bare := saga.Out{Topic: "answer", Key: "a", Data: answered{1}}
	_, err := saga.Encode("svc", bare)
	var b pgx.Batch
	_, queued := saga.Queue(&b, nil, "svc", bare)
	for name, err := range map[string]error{
		"Encode":  err,
		"Queue":   queued,
		"Publish": saga.Publish(t.Context(), nil, "svc", bare),
		"Emit":    saga.Publish(t.Context(), nil, "svc", saga.Emit(saga.Msg[asked]{}, answer, answered{1})...),
	} {
		if err == nil || !strings.Contains(err.Error(), "no id and no cause") {
			t.Errorf("%s: %v", name, err)
		}
	}
	out := sagatest.Deliver(t, database(t), service(func(context.Context, pgx.Tx, saga.Msg[asked]) ([]saga.Out, error) {
		return []saga.Out{bare}, nil
	}), ask(t, "a", 1))
	if letters := dead(t, out); len(letters) != 1 || !strings.Contains(letters[0].Reason, "without a cause") {
		t.Errorf("a handler that returns it: %+v", letters)
	}
}

// Which records are one message: the ids of our own envelope as they are, foreign ones within their source, however
// late they come again.
func TestIdentity(t *testing.T) {
	t.Parallel()
	u, v7 := uuid.New(), uuid.Must(uuid.NewV7())
	record := func(at int64, headers ...string) broker.Record {
		r := broker.Record{Topic: "question", Offset: at, Time: time.UnixMilli(1_700_000_000_000 + at), Value: []byte(`{"n":1}`)}
		for i := 0; i < len(headers); i += 2 {
			r.Headers = append(r.Headers, broker.Header{Key: headers[i], Value: []byte(headers[i+1])})
		}
		return r
	}
	id := func(r broker.Record) uuid.UUID {
		m, err := saga.Decode(question, r)
		if err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	if got := id(record(1, "ce_id", v7.String(), "ce_correlationid", u.String(), "ce_source", "/order")); got != v7 {
		t.Errorf("our own event %s has the id %s", v7, got)
	}
	for name, tt := range map[string]struct {
		a, b broker.Record
		same bool
	}{
		"two sources, one UUID":  {record(1, "ce_id", u.String(), "ce_source", "/crm"), record(2, "ce_id", u.String(), "ce_source", "/billing"), false},
		"two sources, one id":    {record(1, "ce_id", "1", "ce_source", "/crm"), record(2, "ce_id", "1", "ce_source", "/billing"), false},
		"sent again":             {record(1, "ce_id", "1", "ce_source", "/crm", "ce_time", "2026-01-01T00:00:00Z"), record(9e9, "ce_id", "1", "ce_source", "/crm"), true},
		"sent again, no source":  {record(1, "ce_id", "1"), record(9e9, "ce_id", "1"), true},
		"UUID, no source":        {record(1, "ce_id", u.String()), record(9e9, "ce_id", u.String()), true},
		"source and id run on":   {record(1, "ce_id", "b1", "ce_source", "a"), record(1, "ce_id", "1", "ce_source", "ab"), false},
		"no id":                  {record(1), record(2), false},
		"no id, delivered again": {record(1), record(1), true},
		"no id, forged redrive":  {record(1, "converge-redrive", "x", "converge-id", u.String()), record(2, "converge-redrive", "x", "converge-id", u.String()), false},
		"correlation is no UUID": {record(1, "ce_id", u.String(), "ce_source", "/crm", "ce_correlationid", "x"), record(2, "ce_id", u.String(), "ce_source", "/billing", "ce_correlationid", "x"), false},
	} {
		if a, b := id(tt.a), id(tt.b); (a == b) != tt.same {
			t.Errorf("%s: %s and %s", name, a, b)
		}
	}
}

// Two sources that use the same id both have their effect.
func TestTwoSourcesOneID(t *testing.T) {
	t.Parallel()
	db, id := database(t), uuid.NewString()
	from := func(source, key string, offset int64) broker.Record {
		return broker.Record{Topic: "question", Offset: offset, Key: []byte(key), Value: []byte(`{"n":1}`), Headers: []broker.Header{{Key: "ce_id", Value: []byte(id)}, {Key: "ce_source", Value: []byte(source)}}}
	}
	sagatest.Deliver(t, db, service(work), from("/crm", "a", 1), from("/billing", "b", 2), from("/crm", "a", 3))
	if got := effects(t, db); !slices.Equal(got, []string{"a=1", "b=1"}) {
		t.Errorf("effects %v", got)
	}
}

// A time that cannot be is not believed: the record's counts.
func TestImpossibleTimes(t *testing.T) {
	t.Parallel()
	written := time.Date(2026, 11, 1, 2, 3, 4, 0, time.UTC)
	for ceTime, want := range map[string]time.Time{
		"0001-01-01T00:00:00Z": written, "1969-12-31T23:59:59Z": written, "9999-01-01T00:00:00Z": written, "yesterday": written, "": written,
		time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339): written,
		"2026-10-01T00:00:00+02:00":                               time.Date(2026, 9, 30, 22, 0, 0, 0, time.UTC),
	} {
		r := broker.Record{Topic: "question", Time: written, Value: []byte(`{"n":1}`), Headers: []broker.Header{{Key: "ce_time", Value: []byte(ceTime)}}}
		m, err := saga.Decode(question, r)
		if got := saga.TimeOf(r); err != nil || !got.Equal(want) || !m.Time.Equal(want) {
			t.Errorf("ce_time %q: %s and %s, want %s", ceTime, got, m.Time, want)
		}
	}
}

// A record without a value is skipped, once and for all, or handed to the handler that asks for it.
func TestTombstones(t *testing.T) {
	t.Parallel()
	var got []string
	handler := func(ctx context.Context, _ pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		saga.AfterCommit(ctx, func() { got = append(got, fmt.Sprintf("%s=%d %t", m.Key, m.Data.N, m.Tombstone)) })
		return nil, nil
	}
	db := database(t)
	svc := saga.Service{Name: "svc", Routes: []saga.Route{saga.On(question, handler), saga.On(question, handler).Named("all").WithTombstones()}}
	gone := broker.Record{Topic: "question", Offset: 7, Key: []byte("a")}
	for range 2 {
		if out := sagatest.Deliver(t, db, svc, gone); len(out) != 0 {
			t.Errorf("a tombstone made %d records", len(out))
		}
	}
	if !slices.Equal(got, []string{"a=0 true"}) {
		t.Errorf("handled %q, want it once, by the route that asked for it", got)
	}
	var remembered int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM inbox`).Scan(&remembered); err != nil || remembered != 2 {
		t.Errorf("%d rows in the inbox, %v, want one of each group", remembered, err)
	}
	if _, err := saga.Decode(question, gone); err == nil {
		t.Error("a tool decoded a value that is not there")
	}
	if m, err := json.Marshal(saga.Meta{}); err != nil || strings.Contains(string(m), "Tombstone") {
		t.Errorf("stored as %s, %v", m, err)
	}
}

// Routes that share a group begin at one place.
func TestRoutesOfOneGroupStartTogether(t *testing.T) {
	t.Parallel()
	other := saga.NewTopic[asked]("other")
	a, b := saga.On(question, work).From(broker.FromNow()), saga.On(other, work)
	for name, tt := range map[string]struct {
		routes []saga.Route
		ok     bool
	}{
		"differ":     {[]saga.Route{a, b}, false},
		"the same":   {[]saga.Route{a, b.From(broker.FromNow())}, true},
		"two groups": {[]saga.Route{a.Named("mail"), b}, true},
	} {
		_, err := saga.Service{Name: "svc", Routes: tt.routes}.Groups()
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
