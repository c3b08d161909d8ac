package soak

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	shown  = 3               // time lines for one violation
	around = 2 * time.Second // around an order, in which a fault may have to do with it
)

// moment is one line of a time line.
type moment struct {
	at   time.Time
	text string
}

// explain gives violations the time lines of some of their orders.
func explain(ctx context.Context, f *facts, dbs map[string]*pgxpool.Pool, episodes []Episode, found []Violation) {
	requests := map[uuid.UUID]*request{}
	for _, r := range f.requests {
		if r.order != uuid.Nil {
			requests[r.order] = r
		}
	}
	for i := range found {
		for _, id := range found[i].ids[:min(shown, len(found[i].ids))] {
			moments := f.moments(id, requests[id])
			moments = append(moments, stored(ctx, dbs, f, id)...)
			found[i].Examples = append(found[i].Examples, timeline(id, moments, episodes))
		}
	}
}

// moments is what facts know of an order.
func (f *facts) moments(id uuid.UUID, r *request) []moment {
	var all []moment
	add := func(at time.Time, format string, args ...any) {
		if !at.IsZero() {
			all = append(all, moment{at.UTC(), fmt.Sprintf(format, args...)})
		}
	}
	if o := f.orders[id]; o != nil {
		if r == nil && o.Amount >= 1 && o.Amount <= int64(len(f.requests)) {
			r = f.requests[o.Amount-1]
		}
		for _, h := range o.History {
			add(h.At, "order: %s, %s %s", h.Status, h.Event, h.Detail)
		}
		add(o.Created, "order: stored for %s, amount %d, %v; now %s %s", o.User, o.Amount, o.Items, o.Status, o.Reason)
	}
	if r != nil {
		add(r.sent, "client: request %d of %s, key %q", r.n, r.user, r.key)
		add(r.acked, "client: acknowledged")
		add(r.cancelled, "client: cancellation acknowledged")
	}
	if s := f.reservations[id]; s != nil {
		add(s.Created, "inventory: reservation of %v, now %s %s", s.Items, s.Status, s.Reason)
		if s.Released != nil {
			add(*s.Released, "inventory: released")
		}
	}
	if p := f.payments[id]; p != nil {
		add(p.Created, "payment: %d of %s, %s %s", p.Amount, p.User, p.Status, p.Reason)
	}
	for _, topic := range eventTopics() {
		for _, r := range f.topics[topic][id] {
			add(r.at, "topic: %s/%d at %d, id %s", topic, r.partition, r.offset, r.id)
		}
	}
	return all
}

// Rows that only a time line needs. The witness's note the moment of each count.
const (
	inboxOfSQL   = `SELECT seen_at, consumer || ' has seen ' || id FROM inbox WHERE id = ANY($1)`
	outboxOfSQL  = `SELECT created_at, topic || ' waits in the outbox, row ' || id FROM outbox WHERE key = $1`
	countedOfSQL = `SELECT at, 'counted as number ' || n FROM counted WHERE order_id = $1`
)

// stored looks up the rows of inboxes and outboxes that have to do with an order. A time line without them is better
// than none.
func stored(ctx context.Context, dbs map[string]*pgxpool.Pool, f *facts, id uuid.UUID) []moment {
	var events []uuid.UUID
	for _, topic := range eventTopics() {
		for _, r := range f.topics[topic][id] {
			if !slices.Contains(events, r.id) {
				events = append(events, r.id)
			}
		}
	}
	var all []moment
	look := func(service, sql string, arg any) {
		rows, _ := dbs[service].Query(ctx, sql, arg) // the error surfaces in the collector
		var at time.Time
		var text string
		_, err := pgx.ForEachRow(rows, []any{&at, &text}, func() error {
			all = append(all, moment{at.UTC(), service + ": " + text})
			return nil
		})
		if err != nil {
			all = append(all, moment{time.Now().UTC(), fmt.Sprintf("%s: not to be read: %v", service, err)})
		}
	}
	for _, service := range serviceNames() {
		look(service, inboxOfSQL, events)
		look(service, outboxOfSQL, []byte(id.String()))
	}
	look("witness", countedOfSQL, id)
	return all
}

// timeline writes an order's moments and the faults around them, oldest first.
func timeline(id uuid.UUID, moments []moment, episodes []Episode) string {
	if len(moments) == 0 {
		return fmt.Sprintf("order %s: nothing is known of it", id)
	}
	byTime := func(a, b moment) int { return a.at.Compare(b.at) }
	first, last := slices.MinFunc(moments, byTime).at, slices.MaxFunc(moments, byTime).at
	for _, e := range episodes {
		if e.Start.Before(last.Add(around)) && e.End.After(first.Add(-around)) {
			moments = append(moments,
				moment{e.Start, fmt.Sprintf("fault: %s on %s begins", e.Fault, e.On)}, moment{e.End, fmt.Sprintf("fault: %s on %s is over", e.Fault, e.On)})
		}
	}
	slices.SortStableFunc(moments, byTime)
	var text strings.Builder
	fmt.Fprintf(&text, "order %s\n", id)
	for _, m := range moments {
		fmt.Fprintf(&text, "  %s  %s\n", m.at.Format("15:04:05.000000"), m.text)
	}
	return text.String()
}
