package order

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

type reconcileInput struct {
	ID   uuid.UUID `path:"id"`
	Body struct {
		Seen     Status `json:"seen" enum:"PENDING,CONFIRMED,CANCELLING,CANCELLED" doc:"the order's status as the sender has seen it"`
		Reserved bool   `json:"reserved" doc:"inventory holds what was ordered"`
		Paid     bool   `json:"paid" doc:"payment holds what was to be paid"`
		Reason   string `json:"reason" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 256 characters without control characters" example:"expired"`
		By       string `json:"by" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 256 characters without control characters" doc:"who has looked" example:"checker"`
	}
}

func (h *handlers) registerReconcile(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "reconcile-order", Method: http.MethodPost, Path: "/orders/{id}/reconcile", Summary: "Tell an order what inventory and payment hold",
		Description: "For who has compared all three, and found that they disagree. The order draws its conclusions: it is confirmed, cancelled, or stays what it is. " +
			"One that has drawn them since the sender has looked stays what it is, so the request can be sent again safely. " +
			"If it is anything else than what was seen, and would change, it is a 409 of the type changed-meanwhile. " +
			"None is confirmed by a request alone: where payment has not told that it is paid, it is a 409 of the type unproven; payment can be asked to tell it again.",
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.reconcileOrder)
}

func (h *handlers) reconcileOrder(ctx context.Context, in *reconcileInput) (*facts.Output, error) {
	b := in.Body
	o, conflict, err := h.reconcile(ctx, in.ID, comparison{seen: b.Seen, held: held{b.Reserved, b.Paid}, reason: b.Reason, by: b.By})
	switch {
	case errors.Is(err, errUnproven):
		return nil, web.Problem(http.StatusConflict, "unproven", "Unproven", err.Error())
	case err != nil:
		return nil, web.Fault(ctx, err)
	case o == nil:
		return nil, web.NotFound("there is no order %s", in.ID)
	}
	return facts.Reply(o.fact(), string(b.Seen), string(conflict))
}

// fact is the order as source tells it.
func (o *Order) fact() facts.Fact {
	items := make([]facts.Item, len(o.Items))
	for i, item := range o.Items {
		items[i] = facts.Item(item)
	}
	f := facts.Fact{
		ID: o.ID, Member: o.Status == Confirmed, Status: string(o.Status), Amount: o.Amount, Currency: o.Currency, ChangedAt: o.CreatedAt, Detail: o.Reason,
		UserID: &o.UserID, Items: facts.ItemsText(items),
	}
	if n := len(o.History); n > 0 {
		f.ChangedAt = o.History[n-1].At
	}
	return f
}
