// Package timer keeps events that are to be published later: "if this order is not shipped by tomorrow, say so".
// Services use it through package saga: a handler returns saga.After(d, event) or saga.Cancel(topic, key), a request
// gives them to saga.Queue.
//
// A timer is a row, written in the transaction that sets it. When it is due, one transaction deletes the row and puts
// the event into the outbox, with the id that it was given when it was set. So it is fired exactly once, by whichever
// instance, and survives restarts.
//
// A service has one timer for each topic and key. Setting it again replaces it, due time and event; cancelling one that
// is not there does nothing. A cancellation and the firing of one timer exclude each other: whichever commits first
// wins. The event may be on its way by the time that somebody cancels, so its handler looks at its own rows to see
// whether it is still wanted.
//
// Timers are due by the database's clock, and fire in the order of their due times.
package timer

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migration is the timers' schema. They need the outbox's, too.
func Migration() pg.Migration {
	return pg.Migration{Name: "timers", FS: pg.Dir(migrations, "migrations")}
}

// Change sets or cancels a timer.
type Change struct {
	// Message is the event. Its topic and key are the timer's name, and all that Cancel needs.
	Message outbox.Message
	In      time.Duration // how long after the statement it is due, by the database's clock
	At      time.Time     // when it is due, in place of In; zero: In counts
	Cancel  bool
}

// wait is how long it is until the timer is due.
func (c *Change) wait() time.Duration {
	if c.At.IsZero() {
		return c.In
	}
	return c.At.Sub(clock.Now())
}

// Both statements lock rows in the order of their names, in which they get them.
const setSQL = `INSERT INTO timers (service, topic, key, due_at, value, headers)
SELECT $1, s.topic, s.key, coalesce(s.at, (SELECT clock_timestamp()) + s.wait), s.value, s.headers
FROM unnest($2::text[], $3::bytea[], $4::interval[], $5::timestamptz[], $6::bytea[], $7::text[])
    AS s (topic, key, wait, at, value, headers)
ON CONFLICT (service, topic, key)
    DO UPDATE SET due_at = excluded.due_at, value = excluded.value, headers = excluded.headers`

const cancelSQL = `DELETE FROM timers t USING unnest($2::text[], $3::bytea[]) AS c (topic, key)
WHERE t.service = $1 AND t.topic = c.topic AND t.key = c.key`

// Queue adds the changes of a service's timers to a batch of statements of one transaction: one statement for all that
// are set, one for all that are cancelled, none for none. The last change of a timer counts. It fails, naming the
// topic, on an event that is too large to publish.
func Queue(b *pgx.Batch, service string, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	type name struct{ topic, key string }
	last := make(map[name]*Change, len(changes))
	for i := range changes {
		c := &changes[i]
		last[name{c.Message.Topic, string(c.Message.Key)}] = c
	}
	var set, cancel timers
	for _, c := range slices.SortedFunc(maps.Values(last), func(x, y *Change) int {
		return cmp.Or(cmp.Compare(x.Message.Topic, y.Message.Topic), bytes.Compare(x.Message.Key, y.Message.Key))
	}) {
		if c.Cancel {
			cancel.name(c)
			continue
		}
		if n := c.Message.Size(); n > outbox.MaxMessageBytes {
			return fmt.Errorf("timer for %s has %d bytes, at most %d can be published",
				c.Message.Topic, n, outbox.MaxMessageBytes)
		}
		set.name(c)
		if err := set.event(c); err != nil {
			return err
		}
	}
	if len(set.topics) > 0 {
		b.Queue(setSQL, service, set.topics, set.keys, set.waits, set.ats, set.values, set.headers)
	}
	if len(cancel.topics) > 0 {
		b.Queue(cancelSQL, service, cancel.topics, cancel.keys)
	}
	return nil
}

// timers are the columns of rows.
type timers struct {
	topics  []string
	keys    [][]byte
	waits   []time.Duration
	ats     []*time.Time
	values  [][]byte
	headers []string
}

func (t *timers) name(c *Change) {
	t.topics = append(t.topics, c.Message.Topic)
	t.keys = append(t.keys, append([]byte{}, c.Message.Key...)) // an empty key is not NULL
}

func (t *timers) event(c *Change) error {
	headers, err := json.Marshal(c.Message.Headers)
	if err != nil {
		return fmt.Errorf("timer for %s: %w", c.Message.Topic, err)
	}
	var at *time.Time
	if !c.At.IsZero() {
		at = &c.At
	}
	t.waits, t.ats = append(t.waits, c.In), append(t.ats, at)
	t.values, t.headers = append(t.values, c.Message.Value), append(t.headers, string(headers))
	return nil
}

// Soonest is how long it is until the first of the timers is due that the changes set; ok is false if they set none.
func Soonest(changes []Change) (in time.Duration, ok bool) {
	for i := range changes {
		if c := &changes[i]; !c.Cancel && (!ok || c.wait() < in) {
			in, ok = c.wait(), true
		}
	}
	return in, ok
}
