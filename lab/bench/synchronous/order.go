package synchronous

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/web"
)

const (
	deadline       = 5 * time.Second  // of one order, from its request to its answer
	cleanUpFor     = 30 * time.Second // how long what failed is tried to be undone, in the background
	cleanUpBackoff = 3 * time.Second  // at most, from one such try to the next
	stopWithin     = 4 * time.Second  // how long a stop waits for clean-ups; the others are left to a reconciliation
)

// orders is the order service.
type orders struct {
	db                 *pgxpool.Pool
	inventory, payment remote
	abandoned          time.Duration
	log                *slog.Logger

	life      context.Context // of clean-ups
	endOfLife context.CancelFunc
	cleaning  sync.WaitGroup
}

func newOrders(inventoryURL, paymentURL string) *orders {
	o := &orders{inventory: newRemote("inventory", inventoryURL), payment: newRemote("payment", paymentURL), log: slog.New(slog.DiscardHandler)}
	o.life, o.endOfLife = context.WithCancel(context.Background())
	return o
}

// stop waits for clean-ups, and gives up on those that take long.
func (o *orders) stop() {
	hurry := time.AfterFunc(stopWithin, o.endOfLife)
	defer hurry.Stop()
	o.cleaning.Wait()
}

func (o *orders) register(api huma.API, db *pgxpool.Pool) {
	o.db = db
	huma.Register(api, huma.Operation{
		OperationID: "place-order", Method: http.MethodPost, Path: "/orders", DefaultStatus: http.StatusCreated,
		Errors: []int{http.StatusPaymentRequired, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, o.place)
	huma.Register(api, huma.Operation{
		OperationID: "reconcile", Method: http.MethodPost, Path: "/reconcile", Errors: []int{http.StatusServiceUnavailable},
	}, o.reconcile)
}

type charge struct {
	UserID   string `json:"userId"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

type reservation struct {
	Items []item `json:"items"`
}

type placed struct {
	Location string `header:"Location"`
	Body     struct {
		OrderID uuid.UUID `json:"orderId"`
		draft
		Status    string    `json:"status"`
		CreatedAt time.Time `json:"createdAt"`
	}
}

// place stores the order, has its items reserved and its amount charged, confirms it, and answers then.
func (o *orders) place(ctx context.Context, in *struct{ Body draft }) (*placed, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline) // a client that leaves does not stop it halfway
	defer cancel()
	id, d := clock.NewID(), in.Body
	created := clock.Now().UTC().Truncate(time.Microsecond)
	if err := insertOrder(ctx, o.db, id, d, created); err != nil {
		return nil, web.Fault(ctx, err)
	}
	if err := o.inventory.call(ctx, http.MethodPut, "/reservations/"+id.String(), reservation{d.Items}); err != nil {
		return nil, o.fail(ctx, id, err, held{stock: mayBeDone(err)})
	}
	if err := o.payment.call(ctx, http.MethodPut, "/payments/"+id.String(), charge{d.UserID, d.Amount, d.Currency}); err != nil {
		return nil, o.fail(ctx, id, err, held{stock: true, money: mayBeDone(err)})
	}
	if err := settleOrder(ctx, o.db, id, "CONFIRMED", ""); err != nil {
		// It may be confirmed all the same, so nothing is undone here: the reconciliation will see what it is.
		o.log.Error("order paid and not confirmed", "order", id, "error", err)
		return nil, web.Fault(ctx, err)
	}
	out := &placed{Location: "/orders/" + id.String()}
	out.Body.OrderID, out.Body.draft, out.Body.Status, out.Body.CreatedAt = id, d, "CONFIRMED", created
	return out, nil
}

// held says what the other services may hold for an order.
type held struct{ stock, money bool }

// mayBeDone says whether a call that failed may have had its effect.
func mayBeDone(err error) bool {
	f, ok := errors.AsType[*fault](err)
	return ok && f.done
}

// fail undoes an order and returns the answer to its client: a refusal when everything is undone, unless that fails
// too; a fault at once.
func (o *orders) fail(ctx context.Context, id uuid.UUID, cause error, h held) error {
	if no, ok := errors.AsType[*refusal](cause); ok {
		if err := o.undo(ctx, id, h, no.Error()); err != nil {
			o.cleanUp(id, h, no.Error())
		}
		return no.forClient()
	}
	service := "another service"
	if f, ok := errors.AsType[*fault](cause); ok {
		service = f.service
	}
	o.log.Warn("order failed", "order", id, "error", cause)
	o.cleanUp(id, h, service+" did not answer")
	return web.Problem(http.StatusServiceUnavailable, web.TypeUnavailable, "Temporarily unavailable", service+" does not answer")
}

// undo compensates in reverse order, each step on its own, and cancels the order when nothing is held any more.
func (o *orders) undo(ctx context.Context, id uuid.UUID, h held, reason string) error {
	var errs []error
	if h.money {
		errs = append(errs, o.payment.call(ctx, http.MethodDelete, "/payments/"+id.String(), nil))
	}
	if h.stock {
		errs = append(errs, o.inventory.call(ctx, http.MethodDelete, "/reservations/"+id.String(), nil))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("undo order %s: %w", id, err)
	}
	return settleOrder(ctx, o.db, id, "CANCELLED", reason)
}

// cleanUp undoes an order in the background, again and again for a while. It lives in this process's memory: when that
// ends or the while is over, the order stays as it is until a reconciliation.
func (o *orders) cleanUp(id uuid.UUID, h held, reason string) {
	o.cleaning.Go(func() {
		ctx, cancel := context.WithTimeout(o.life, cleanUpFor)
		defer cancel()
		growing := backoff.NewExponentialBackOff()
		growing.InitialInterval, growing.MaxInterval = cleanUpBackoff/3, cleanUpBackoff
		if _, err := backoff.Retry(ctx, func() (struct{}, error) {
			return struct{}{}, o.undo(ctx, id, h, reason)
		}, backoff.WithBackOff(growing)); err != nil {
			o.log.Error("order not undone", "order", id, "error", err)
		}
	})
}

type reconciled struct {
	Body struct {
		Undone int `json:"undone"`
		Failed int `json:"failed"`
	}
}

// reconcile undoes the orders that nobody works on any more: their process died, or could not finish.
func (o *orders) reconcile(ctx context.Context, _ *struct{}) (*reconciled, error) {
	ids, err := abandonedOrders(ctx, o.db, clock.Now().Add(-o.abandoned))
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &reconciled{}
	for _, id := range ids {
		if err := o.undo(ctx, id, held{stock: true, money: true}, "abandoned"); err != nil {
			o.log.Error("order not reconciled", "order", id, "error", err)
			out.Body.Failed++
			continue
		}
		out.Body.Undone++
	}
	return out, nil
}
