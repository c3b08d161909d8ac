package order

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// The types of the problems with an Idempotency-Key.
const (
	typeKeyReused = "idempotency-key-reused" // 422: it belongs to a different request
	typeKeyInUse  = "idempotency-key-in-use" // 409: its request is in progress; trying again gets the answer
)

// posting is one POST /orders on its way into the database, complete with its answer: what is left is to store it, or
// to find that another one came first under its key.
type posting struct {
	key    *idempotency.Key // nil if the client gave none
	order  *Order           // nil if the draft is refused
	begins saga.Out         // the order's order.created
	answer answer
}

// answer is what a client gets for a posting and gets again under its key.
type answer struct {
	idempotency.Result
	replayed bool
}

// newPosting decides what becomes of a draft, as far as that needs no database. An empty key is none.
func newPosting(ctx context.Context, d Draft, key string, now time.Time) posting {
	var p posting
	if key != "" {
		p.key = &idempotency.Key{Scope: "POST /orders " + d.UserID, Key: key, Fingerprint: idempotency.Fingerprint(encode(d))}
	}
	if lines := d.duplicates(); len(lines) > 0 {
		p.answer = newAnswer(http.StatusUnprocessableEntity, web.Invalid(duplicateFields(d, lines)...),
			map[string]string{"Content-Type": "application/problem+json"})
		return p
	}
	o := newOrder(clock.NewID(), d, now)
	p.order = &o
	p.begins = saga.New(ctx, event.OrderCreated, o.ID.String(), o.created())
	p.answer = newAnswer(http.StatusAccepted, o,
		map[string]string{"Content-Type": "application/json", "Location": "/orders/" + o.ID.String()})
	return p
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

func newAnswer(status int, body any, header map[string]string) answer {
	return answer{Result: idempotency.Result{Status: status, Header: header, Body: encode(body)}}
}

func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // plain structs
	}
	return b.Bytes()
}

// placer stores postings.
type placer struct {
	db      *pgxpool.Pool
	keys    idempotency.Keys
	relay   *outbox.Relay // nil: events wait in the outbox
	metrics *metrics
}

// place stores the postings in one transaction, orders, events and answers, and returns what to answer each. When it
// fails, nothing is stored, unless the connection was lost during the commit: then a client without a key cannot know.
func (p *placer) place(ctx context.Context, postings []posting) ([]pg.Result[answer], error) {
	results := make([]pg.Result[answer], len(postings))
	var keys []idempotency.Key
	var at []int // the posting of each key
	for i, posting := range postings {
		results[i].Value = posting.answer
		if posting.key != nil {
			keys, at = append(keys, *posting.key), append(at, i)
		}
	}

	var accepted int
	var handover *outbox.Handover
	var err error
	if len(keys) == 0 {
		// A batch of statements is a transaction by itself, and the commit needs no round-trip of its own.
		var b pgx.Batch
		if accepted, handover, err = p.write(&b, postings, results); err == nil && b.Len() > 0 {
			err = p.db.SendBatch(ctx, &b).Close()
		}
	} else {
		err = pg.InTx(ctx, p.db, func(tx pgx.Tx) error {
			claims, err := p.keys.Claim(ctx, tx, keys)
			if err != nil {
				return err
			}
			for i, claim := range claims {
				if claim.State != idempotency.New {
					results[at[i]] = known(keys[i], claim)
				}
			}
			var b pgx.Batch
			if accepted, handover, err = p.write(&b, postings, results); err != nil {
				return err
			}
			return pg.Defer(ctx, tx, &b)
		})
	}
	handover.Done(err == nil)
	if err != nil {
		return nil, fmt.Errorf("place %d orders: %w", len(postings), err)
	}
	if accepted > 0 {
		p.metrics.accepted(accepted)
	}
	return results, nil
}

// known is the result of a posting whose key was used before.
func known(key idempotency.Key, claim idempotency.Claim) (r pg.Result[answer]) {
	switch claim.State {
	case idempotency.Replay:
		r.Value = answer{Result: claim.Result, replayed: true}
	case idempotency.InProgress:
		r.Err = web.Problem(http.StatusConflict, typeKeyInUse, "Request in progress",
			"a request with this key is in progress; send it again in a moment to get its answer",
			web.Field("header.Idempotency-Key", "expected a key that is not in use at this moment", key.Key))
	default:
		r.Err = web.Problem(http.StatusUnprocessableEntity, typeKeyReused, "Idempotency-Key reused",
			"the key belongs to a different request of this user; send this one with a key of its own",
			web.Field("header.Idempotency-Key", "expected a key that was not used for another request", key.Key))
	}
	return r
}

// write queues what stores the postings that have no result from earlier yet, and returns how many orders these are.
func (p *placer) write(b *pgx.Batch, postings []posting, results []pg.Result[answer]) (int, *outbox.Handover, error) {
	var orders []*Order
	var begins []saga.Out
	var answers []idempotency.Stored
	for i, posting := range postings {
		if results[i].Err != nil || results[i].Value.replayed {
			continue
		}
		if posting.order != nil {
			orders, begins = append(orders, posting.order), append(begins, posting.begins)
		}
		if posting.key != nil {
			answers = append(answers, idempotency.Stored{Key: *posting.key, Result: posting.answer.Result})
		}
	}
	queueInsert(b, orders)
	p.keys.Queue(b, answers)
	handover, err := saga.Queue(b, p.relay, "order", begins...)
	return len(orders), handover, err
}
