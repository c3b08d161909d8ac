package saga_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// aged is a message of days ago at an offset.
func aged(t *testing.T, offset int64, days int) broker.Record {
	t.Helper()
	at := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
	r := ask(t, "a", int(offset))
	r.Offset, r.Time = offset, at
	for i, h := range r.Headers {
		if h.Key == "ce_time" {
			r.Headers[i].Value = []byte(at.Format(time.RFC3339Nano))
		}
	}
	return r
}

// prune makes the inbox forget all that it has.
func prune(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `DELETE FROM inbox WHERE consumer NOT LIKE '%@redrive'`); err != nil {
		t.Fatal(err)
	}
}

// A group that begins anew handles nothing again: what the inbox remembers it knows, and what it has forgotten lies
// below the floor. What is above the floor is handled, however old, and what is younger than the inbox is the inbox's
// to decide.
func TestThePastIsNotHandledAgain(t *testing.T) {
	t.Parallel()
	db := database(t)
	var log bytes.Buffer
	deliver := func(records ...broker.Record) {
		t.Helper()
		if err := saga.Deliver(t.Context(), service(work), saga.Config{DB: db, Log: slog.New(slog.NewTextHandler(&log, nil))}, records...); err != nil {
			t.Fatal(err)
		}
	}
	old := []broker.Record{aged(t, 1, 30), aged(t, 2, 20), aged(t, 3, 10)}
	young := []broker.Record{aged(t, 4, 2), aged(t, 5, 1)}
	behind := aged(t, 6, 9) // written late, with the producer's time
	deliver(append(slices.Clone(old), young...)...)
	prune(t, db)
	deliver(young[0]) // the inbox remembers the last days
	if err := inbox.Note(t.Context(), db, "svc", []inbox.Floor{{Topic: "question", Partition: 0, Next: 6}}); err != nil {
		t.Fatal(err)
	}
	before := len(effects(t, db))
	deliver(append(slices.Concat(old, young[:1]), behind)...)
	if got := effects(t, db)[before:]; !slices.Equal(got, []string{"a=6"}) {
		t.Errorf("effects %v of a second reading, want only what lies above the floor", got)
	}
	if n := strings.Count(log.String(), "group=svc"); n != 2 || !strings.Contains(log.String(), "offset=1 floor=6") || !strings.Contains(log.String(), "times=3") {
		t.Errorf("%d log lines:\n%s", n, log.String())
	}
	deliver(young[1])
	if got := effects(t, db); got[len(got)-1] != "a=5" {
		t.Errorf("effects %v: below the floor and young, it is for the inbox to decide, which has forgotten it", got)
	}
}

// A topic that was made anew has other messages at its offsets: the floor of the old one does not count.
func TestFloorOfAnotherTopic(t *testing.T) {
	t.Parallel()
	db := database(t)
	if err := inbox.Note(t.Context(), db, "svc", []inbox.Floor{{Topic: "question", Partition: 0, Next: 100}, {Topic: "question", Partition: 1, Next: 100}}); err != nil {
		t.Fatal(err)
	}
	sagatest.Deliver(t, db, service(work), aged(t, 1, 30))
	if n := len(effects(t, db)); n != 0 {
		t.Errorf("%d effects of a message below the floor", n)
	}
	if err := inbox.Forget(t.Context(), db, "svc", "question", 0); err != nil {
		t.Fatal(err)
	}
	other := aged(t, 2, 30)
	other.Partition = 1
	sagatest.Deliver(t, db, service(work), aged(t, 1, 30), other)
	if got := effects(t, db); !slices.Equal(got, []string{"a=1"}) {
		t.Errorf("effects %v, want those of the partition whose floor was forgotten", got)
	}
}

// A floor is one group's.
func TestFloorIsTheGroups(t *testing.T) {
	t.Parallel()
	db := database(t)
	if err := inbox.Note(t.Context(), db, "another", []inbox.Floor{{Topic: "question", Next: 1000}}); err != nil {
		t.Fatal(err)
	}
	var records []broker.Record
	for n := range int64(50) {
		records = append(records, aged(t, n+1, 30))
	}
	sagatest.Deliver(t, db, service(work), records...)
	if n := len(effects(t, db)); n != 50 {
		t.Errorf("%d effects of %d messages that another group's floor is above: %s", n, len(records), fmt.Sprint(effects(t, db)))
	}
}
