package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/soak/witness"
)

// facts are what databases, topics, clients and the machine say, for the checker to hold against each other.
type facts struct {
	requests   []*request
	unanswered int
	stock      map[string]int64

	orders       map[uuid.UUID]*orderRow
	reservations map[uuid.UUID]*reservationRow
	payments     map[uuid.UUID]*paymentRow
	products     []productRow
	ledger       ledger
	outboxes     map[string]int // rows by service
	counted      map[uuid.UUID]int
	countedAt    []time.Time
	tally        map[string]int64

	topics   map[string]map[uuid.UUID][]record // by topic and order
	strays   []stray                           // records that are no event of an order
	counts   map[string][]int64                // what the witness said, by bucket, in the topic's order
	dead     []deadLetter
	poisoned []poisoned

	transfers []*transfer
	sightings []sighting // what the system's checker has found
	checks    int        // that it has made
	excused   func(sighting) bool
	episodes  []Episode
	ended     time.Time     // load and faults
	settling  time.Duration // from then until all was settled
	patience  time.Duration // that may take
	blind     string        // why it does not see at the end that all is well

	machine []string // what is wrong with processes, memory, logs and answers
}

type orderRow struct {
	User     string
	Items    []item
	Amount   int64
	Currency string
	Status   string
	Reason   string
	History  []entry
	Created  time.Time
	Settled  *time.Time
}

// confirmed tells whether the order was CONFIRMED, though it may have been cancelled since.
func (o *orderRow) confirmed() bool {
	return o.Status == "CONFIRMED" || slices.ContainsFunc(o.History, func(e entry) bool { return e.Status == "CONFIRMED" })
}

// heard tells whether an event is in the order's history.
func (o *orderRow) heard(event string) bool {
	return slices.ContainsFunc(o.History, func(e entry) bool { return e.Event == event })
}

type entry struct {
	At     time.Time `json:"at"`
	Status string    `json:"status"`
	Event  string    `json:"event"`
	Detail string    `json:"detail"`
}

type reservationRow struct {
	Status   string
	Items    []item
	Reason   string
	Created  time.Time
	Released *time.Time
}

type paymentRow struct {
	ID       uuid.UUID
	User     string
	Amount   int64
	Currency string
	Status   string
	Reason   string
	Created  time.Time
}

type productRow struct {
	ID                         string
	Stock, Available, Reserved int64
}

const (
	ordersSQL       = `SELECT id, user_id, items, amount, currency, status, reason, history, created_at, settled_at FROM orders`
	reservationsSQL = `SELECT order_id, status, items, reason, created_at, released_at FROM reservations`
	paymentsSQL     = `SELECT order_id, id, user_id, amount, currency, status, reason, created_at FROM payments`
	productsSQL     = `SELECT id, stock, available, reserved FROM products ORDER BY id`
)

// readDatabases reads everything that the services store.
func (f *facts) readDatabases(ctx context.Context, dbs map[string]*pgxpool.Pool) error {
	f.orders, f.reservations, f.payments = map[uuid.UUID]*orderRow{}, map[uuid.UUID]*reservationRow{}, map[uuid.UUID]*paymentRow{}
	f.outboxes, f.counted, f.tally = map[string]int{}, map[uuid.UUID]int{}, map[string]int64{}
	f.products, f.countedAt = nil, nil
	var id uuid.UUID
	each := func(service, sql string, fn func(rows pgx.Rows) error) error {
		rows, _ := dbs[service].Query(ctx, sql) // the error surfaces at the end
		defer rows.Close()
		for rows.Next() {
			if err := fn(rows); err != nil {
				return fmt.Errorf("read %s: %w", service, err)
			}
		}
		if err := rows.Err(); err != nil {
			return fmt.Errorf("read %s: %w", service, err)
		}
		return nil
	}
	err := errors.Join(
		each("order", ordersSQL, func(rows pgx.Rows) error {
			var o orderRow
			err := rows.Scan(&id, &o.User, &o.Items, &o.Amount, &o.Currency, &o.Status, &o.Reason, &o.History, &o.Created, &o.Settled)
			f.orders[id] = &o
			return err
		}),
		each("inventory", reservationsSQL, func(rows pgx.Rows) error {
			var r reservationRow
			err := rows.Scan(&id, &r.Status, &r.Items, &r.Reason, &r.Created, &r.Released)
			f.reservations[id] = &r
			return err
		}),
		each("payment", paymentsSQL, func(rows pgx.Rows) error {
			var p paymentRow
			err := rows.Scan(&id, &p.ID, &p.User, &p.Amount, &p.Currency, &p.Status, &p.Reason, &p.Created)
			f.payments[id] = &p
			return err
		}),
		each("inventory", productsSQL, func(rows pgx.Rows) error {
			var p productRow
			err := rows.Scan(&p.ID, &p.Stock, &p.Available, &p.Reserved)
			f.products = append(f.products, p)
			return err
		}),
		each(witness.Name, `SELECT order_id, count(*)::int, min(at) FROM counted GROUP BY 1`, func(rows pgx.Rows) error {
			var n int
			var at time.Time
			err := rows.Scan(&id, &n, &at)
			f.counted[id] = n
			f.countedAt = append(f.countedAt, at)
			return err
		}),
		each(witness.Name, `SELECT bucket, n FROM tally`, func(rows pgx.Rows) error {
			var bucket string
			var n int64
			err := rows.Scan(&bucket, &n)
			f.tally[bucket] = n
			return err
		}),
	)
	err = errors.Join(err, f.ledger.read(ctx, dbs["payment"]))
	for _, service := range serviceNames() {
		var n int
		if countErr := dbs[service].QueryRow(ctx, `SELECT count(*) FROM outbox`).Scan(&n); countErr != nil {
			err = errors.Join(err, fmt.Errorf("count the outbox of %s: %w", service, countErr))
		}
		f.outboxes[service] = n
	}
	return err
}

// record is an event of an order as it lies in its topic.
type record struct {
	id, cause uuid.UUID
	partition int
	offset    int64
	at        time.Time
	amount    int64
	payment   uuid.UUID
}

// stray is a record that should not be where it is.
type stray struct {
	place  string
	reason string
}

type deadLetter struct {
	place, group, topic, reason string
	poison                      string // empty: it is none, or a reference to a message that was too large for a dead letter
	from                        string // the place of the message itself
}

// payload is what any event may say that is held against the databases.
type payload struct {
	OrderID   uuid.UUID `json:"orderId"`
	Amount    int64     `json:"amount"`
	PaymentID uuid.UUID `json:"paymentId"`
	N         int64     `json:"n"`
}

func parsePayload(value []byte) (payload, error) {
	var p payload
	err := json.Unmarshal(value, &p)
	return p, err
}
