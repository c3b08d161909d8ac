package naive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
)

// handler does one message's work in its transaction and returns what it emits.
type handler func(ctx context.Context, tx pgx.Tx, value []byte) (emit, error)

const claimSQL = `INSERT INTO inbox (consumer, id) VALUES ($1, $2) ON CONFLICT DO NOTHING`

// consume has a worker for each partition, which handles one message after the other: with one for all, every message
// would wait for the commits of those before it, whatever partition they are of. Offsets are committed once a second,
// after the transaction of what they cover: waiting for each commit would be the plain way, and far slower.
func (s *service) consume(ctx context.Context, topic string, handle handler) error {
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{s.broker}, GroupID: prefix + s.name, Topic: topic, StartOffset: kafka.FirstOffset,
		MinBytes: 1, MaxBytes: 10e6, MaxWait: 500 * time.Millisecond, CommitInterval: time.Second,
		JoinGroupBackoff: 200 * time.Millisecond, ReadBackoffMin: 10 * time.Millisecond, ReadBackoffMax: 50 * time.Millisecond,
	})
	defer r.Close() //nolint:errcheck // what is not committed comes again
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		workers := map[int]chan kafka.Message{}
		for {
			m, err := r.FetchMessage(ctx)
			var temporary kafka.Error
			if errors.As(err, &temporary) && temporary.Temporary() {
				continue // a coordinator that is not there yet; the reader backs off before it joins again
			}
			if err != nil {
				return fmt.Errorf("fetch from %s: %w", topic, err)
			}
			in, ok := workers[m.Partition]
			if !ok {
				in = make(chan kafka.Message, 100)
				workers[m.Partition] = in
				g.Go(func() error { return s.work(ctx, r, in, handle) })
			}
			select {
			case in <- m:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

func (s *service) work(ctx context.Context, r *kafka.Reader, in <-chan kafka.Message, handle handler) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-in:
			if err := s.handle(ctx, m, handle); err != nil {
				return fmt.Errorf("handle %s/%d/%d: %w", m.Topic, m.Partition, m.Offset, err)
			}
			if err := r.CommitMessages(ctx, m); err != nil {
				return fmt.Errorf("commit %s: %w", m.Topic, err)
			}
		}
	}
}

func (s *service) handle(ctx context.Context, m kafka.Message, handle handler) error {
	return pg.InTx(ctx, s.db, func(tx pgx.Tx) error {
		var id string
		for _, h := range m.Headers {
			if h.Key == "id" {
				id = string(h.Value)
			}
		}
		tag, err := tx.Exec(ctx, claimSQL, s.name, id)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		out, err := handle(ctx, tx, m.Value)
		if err != nil {
			return err
		}
		args, err := out.args()
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, insertOutboxSQL, args...)
		return err
	})
}

const (
	takeSQL = `UPDATE products SET available = available - $2, reserved = reserved + $2, updated_at = now()
WHERE id = $1 AND available >= $2`
	addReservationSQL = `INSERT INTO reservations (order_id, status, items, reason) VALUES ($1, 'RESERVED', $2, '')`
)

// reserve takes the lines in the order of their products, so that two transactions never wait for each other.
func (s *service) reserve(ctx context.Context, tx pgx.Tx, value []byte) (emit, error) {
	var e event.OrderCreatedV1
	if err := json.Unmarshal(value, &e); err != nil {
		return emit{}, err
	}
	items := sortedItems(e.Items)
	for _, item := range items {
		tag, err := tx.Exec(ctx, takeSQL, item.ProductID, item.Quantity)
		if err != nil {
			return emit{}, err
		}
		if tag.RowsAffected() == 0 {
			return emit{}, fmt.Errorf("out of stock: %s", item.ProductID) // the bench's orders never are
		}
	}
	text, err := json.Marshal(items)
	if err != nil {
		return emit{}, err
	}
	if _, err := tx.Exec(ctx, addReservationSQL, e.OrderID, text); err != nil {
		return emit{}, err
	}
	out := event.InventoryReservedV1{OrderID: e.OrderID, UserID: e.UserID, Amount: e.Amount, Currency: e.Currency}
	return emit{Reserved, uuid.Must(uuid.NewV7()), e.OrderID, out}, nil
}

const (
	addPaymentSQL = `INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason)
VALUES ($1, $2, $3, $4, $5, 'COMPLETED', '')`

	debitSQL  = `UPDATE accounts SET balance = balance - $2 WHERE id = $1 AND balance >= $2`
	creditSQL = `UPDATE accounts SET balance = balance + $2 WHERE id = $1`

	addEntriesSQL = `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
VALUES ($1, $3, 'charge', -$4::bigint, $2), ($2, $3, 'charge', $4, $1)`
)

// charge moves the money from the user's balance to the merchant's. That row is every charge's, so it is the last that
// is changed.
func (s *service) charge(ctx context.Context, tx pgx.Tx, value []byte) (emit, error) {
	var e event.InventoryReservedV1
	if err := json.Unmarshal(value, &e); err != nil {
		return emit{}, err
	}
	id, merchant := uuid.Must(uuid.NewV7()), "merchant."+e.Currency
	if _, err := tx.Exec(ctx, addPaymentSQL, e.OrderID, id, e.UserID, e.Amount, e.Currency); err != nil {
		return emit{}, err
	}
	tag, err := tx.Exec(ctx, debitSQL, e.UserID, e.Amount)
	if err != nil {
		return emit{}, err
	}
	if tag.RowsAffected() == 0 {
		return emit{}, fmt.Errorf("insufficient balance of %s", e.UserID) // the bench's users have plenty
	}
	if _, err := tx.Exec(ctx, addEntriesSQL, e.UserID, merchant, id, e.Amount); err != nil {
		return emit{}, err
	}
	if _, err := tx.Exec(ctx, creditSQL, merchant, e.Amount); err != nil {
		return emit{}, err
	}
	return emit{Paid, uuid.Must(uuid.NewV7()), e.OrderID, event.PaymentCompletedV1{OrderID: e.OrderID, PaymentID: id, Amount: e.Amount}}, nil
}

const confirmSQL = `UPDATE orders SET status = 'CONFIRMED', settled_at = $2, history = history || $3::jsonb
WHERE id = $1 AND status = 'PENDING'`

func (s *service) confirm(ctx context.Context, tx pgx.Tx, value []byte) (emit, error) {
	var e event.PaymentCompletedV1
	if err := json.Unmarshal(value, &e); err != nil {
		return emit{}, err
	}
	now := time.Now().UTC()
	if _, err := tx.Exec(ctx, confirmSQL, e.OrderID, now, history("CONFIRMED", event.PaymentCompleted.Name(), now)); err != nil {
		return emit{}, err
	}
	return emit{Confirmed, uuid.Must(uuid.NewV7()), e.OrderID, event.OrderConfirmedV1{OrderID: e.OrderID}}, nil
}
