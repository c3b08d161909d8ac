package outbox

import (
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
)

// maxHanded bounds the records that wait in memory; what exceeds it is read from the table.
const maxHanded = 10_000

// Handover is events on their way from a transaction to the relay of the same process, which then need not be read back
// from the table.
type Handover struct {
	relay  *Relay
	ticket uint64 // 0: it has no events
	rows   []row  // ids are known when the insert has run

	timed bool
	due   time.Duration // timed: how soon the first of the transaction's timers is
}

// Queue adds the messages to a batch of statements of one transaction, and hands them over to the relay when Done says
// that it was committed. A nil relay takes nothing over: they wait in the table. No messages add no statement, and
// their Handover is nil, which Done accepts. It fails, naming the topic, on a message that is too large to publish.
func (r *Relay) Queue(b *pgx.Batch, msgs []Message) (*Handover, error) {
	if r == nil || len(msgs) == 0 {
		return nil, queue(b, msgs, nil)
	}
	h := &Handover{relay: r, rows: make([]row, 0, len(msgs))}
	if err := queue(b, msgs, func(rows pgx.Rows) error {
		var id int64
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			m := &msgs[len(h.rows)]
			h.rows = append(h.rows, row{id, broker.Record{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers}})
			return nil
		})
		return err
	}); err != nil {
		return nil, err
	}
	h.ticket = r.handed.open()
	return h, nil
}

// OnDue names the function that is told, when a transaction has committed, how soon the first of the timers is due that
// it has set. The function must not block. Call OnDue before the relay is used.
func (r *Relay) OnDue(fn func(in time.Duration)) {
	if r != nil {
		r.onDue = fn
	}
}

// Due has the hand-over, which may be that of no messages, tell how soon the first of the transaction's timers is due.
// It returns the one to call Done of.
func (r *Relay) Due(h *Handover, in time.Duration) *Handover {
	if r == nil || r.onDue == nil {
		return h
	}
	if h == nil {
		h = &Handover{relay: r}
	}
	h.timed, h.due = true, in
	return h
}

// Done ends the hand-over; it must be called once, after the transaction. When it was not committed, or nobody knows,
// the relay looks into the table for what there is.
func (h *Handover) Done(committed bool) {
	if h == nil {
		return
	}
	if committed && h.timed {
		h.relay.onDue(h.due)
	}
	if h.ticket == 0 {
		return
	}
	if committed {
		h.relay.handed.add(h.ticket, h.rows)
	} else {
		h.relay.handed.add(h.ticket, nil)
	}
	h.relay.signal()
}

// handed is what transactions of this process have handed over, by id, and which of them are still under way.
type handed struct {
	mu      sync.Mutex
	next    uint64
	tickets map[uint64]struct{}
	ready   map[int64]broker.Record
	leading bool // somebody takes the records
	full    bool // some were dropped: only the table has all
	look    bool // something was committed that nobody handed over
}

func (h *handed) open() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tickets == nil {
		h.tickets = map[uint64]struct{}{}
	}
	h.next++
	h.tickets[h.next] = struct{}{}
	return h.next
}

func (h *handed) add(ticket uint64, rows []row) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tickets, ticket)
	if !h.leading || h.full {
		return
	}
	if len(h.ready)+len(rows) > maxHanded {
		clear(h.ready)
		h.full = true
		return
	}
	now := time.Now()
	for _, r := range rows {
		r.record.Time = now
		h.ready[r.id] = r.record
	}
}

// lookSoon makes the next take say that the table has more.
func (h *handed) lookSoon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look = true
}

// begin starts collecting for a new leader; end stops it.
func (h *handed) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leading, h.full, h.look, h.ready = true, false, true, map[int64]broker.Record{}
}

func (h *handed) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leading, h.ready = false, nil
}

// looking prepares for a look into the table: what is handed over from now on may be missing there.
func (h *handed) looking() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look, h.full = false, false
}

// looked drops the records that the look has published.
func (h *handed) looked(f *frontier) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.ready {
		if f.has(id) {
			delete(h.ready, id)
		}
	}
}

// take returns the records that follow base without a gap, at most limit. gap is the number of a ticket, and not zero,
// where there is one: what is missing may be in the hands of an earlier ticket. look says that only the table knows
// what is next.
func (h *handed) take(base int64, limit int, noticed uint64) (rows []row, gap uint64, look bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.look || h.full {
		return nil, 0, true
	}
	for len(rows) < limit {
		id := base + int64(len(rows)) + 1
		record, ok := h.ready[id]
		if !ok {
			break
		}
		delete(h.ready, id)
		rows = append(rows, row{id, record})
	}
	if len(rows) > 0 {
		return rows, 0, false
	}
	for id := range h.ready { // a look has published it before its transaction could say so
		if id <= base {
			delete(h.ready, id)
		}
	}
	if len(h.ready) == 0 {
		return nil, 0, false
	}
	if noticed == 0 {
		noticed = h.next
	}
	for t := range h.tickets {
		if t <= noticed {
			return nil, noticed, false
		}
	}
	return nil, noticed, true
}
