package order

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// posting is one POST /orders on its way into the database, complete with its answer: the transaction only has to store
// it, or to find that another posting under the same key came first.
type posting struct {
	key    *string
	order  *Order   // nil if the draft is refused
	begins saga.Out // the order's order.created
	answer answer
}

// answer is what a client gets for a posting and, under a key, gets again.
type answer struct {
	Status   int
	Location string
	Body     []byte

	replayed bool
}

func (a answer) contentType() string {
	if a.Status >= http.StatusBadRequest {
		return "application/problem+json"
	}
	return "application/json"
}

// newPosting decides what becomes of a draft, without looking at the database.
func newPosting(ctx context.Context, d Draft, key string, now time.Time) posting {
	if again := d.duplicates(); len(again) > 0 {
		return posting{answer: newAnswer(http.StatusUnprocessableEntity, "", web.Invalid(duplicateFields(d, again)...))}
	}
	o := place(uuid.Must(uuid.NewV7()), d, now)
	return posting{
		order:  &o,
		begins: saga.New(ctx, event.OrderCreated, o.ID.String(), o.created()),
		answer: newAnswer(http.StatusAccepted, "/orders/"+o.ID.String(), o),
	}
}

func newAnswer(status int, location string, body any) answer {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		panic(err) // plain structs
	}
	return answer{Status: status, Location: location, Body: b.Bytes()}
}

// duplicateFields names each line that repeats a product, and the line it repeats.
func duplicateFields(d Draft, lines []duplicate) []*huma.ErrorDetail {
	fields := make([]*huma.ErrorDetail, len(lines))
	for i, l := range lines {
		fields[i] = web.Field(fmt.Sprintf("body.items[%d].productId", l.line),
			fmt.Sprintf("expected each product once, body.items[%d] has it already", l.first), d.Items[l.line].ProductID)
	}
	return fields
}

// placer stores postings.
type placer struct {
	db      *pgxpool.Pool
	wake    func()
	metrics *metrics
}

// place stores the postings in one transaction and returns the answer to each. Nothing is stored when it fails.
func (p *placer) place(ctx context.Context, postings []posting) ([]pg.Result[answer], error) {
	results := make([]pg.Result[answer], len(postings))
	accepted := 0
	err := pg.InTx(ctx, p.db, func(tx pgx.Tx) error {
		var b pgx.Batch
		var orders []*Order
		var begins []saga.Out
		for i, posting := range postings {
			results[i].Value = posting.answer
			if posting.order != nil {
				orders, begins = append(orders, posting.order), append(begins, posting.begins)
			}
		}
		accepted = len(orders)
		queueInsert(&b, orders)
		if err := saga.Queue(&b, "order", begins...); err != nil {
			return err
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("place %d orders: %w", len(postings), err)
	}
	if accepted > 0 {
		p.wake()
		p.metrics.accepted(accepted)
	}
	return results, nil
}
