package payment

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

type (
	// OrderPath is exported because huma passes over what it embeds otherwise.
	OrderPath struct {
		OrderID uuid.UUID `path:"orderId"`
	}
	chargeInput struct {
		OrderPath
		Body struct {
			Seen     string `json:"seen" enum:"NONE,COMPLETED,REFUNDING,FAILED,REFUNDED" doc:"the payment's status as the sender has seen it"`
			UserID   string `json:"userId" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"ada" doc:"who pays"`
			Amount   int64  `json:"amount" minimum:"0" maximum:"1000000000000000" doc:"in minor units" example:"4200"`
			Currency string `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
			Tell     bool   `json:"tell,omitempty" doc:"if it was seen as COMPLETED, and is, payment.completed is told again, for an order that has not heard it"`
		}
	}
	refundInput struct {
		OrderPath
		Body struct {
			Seen   string `json:"seen" enum:"NONE,COMPLETED,REFUNDING,FAILED,REFUNDED" doc:"the payment's status as the sender has seen it"`
			Orphan bool   `json:"orphan,omitempty" doc:"order does not know the order: nobody is told, unless the refund has to wait"`
		}
	}
	decideInput struct {
		OrderPath
		Body struct {
			Seen     string `json:"seen" enum:"NONE,COMPLETED,REFUNDING,FAILED,REFUNDED" doc:"the payment's status as the sender has seen it"`
			Paid     bool   `json:"paid" doc:"what was decided: true, the order is paid, once; false, it is not, and what it paid is paid back"`
			UserID   string `json:"userId" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"ada" doc:"who pays"`
			Amount   int64  `json:"amount" minimum:"0" maximum:"1000000000000000" doc:"of the order, in minor units" example:"4200"`
			Currency string `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
		}
	}
	recountInput struct {
		OrderPath
		Body struct{}
	}
	recountAccountInput struct {
		ID   string `path:"id" minLength:"1" maxLength:"132" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*(\\t[A-Z]{3})?$" patternDescription:"an account as an audit names it: its owner, and of a user's further account a tab and its currency behind it" example:"ada"`
		Body struct{}
	}
	recountTransferInput struct {
		ID   uuid.UUID `path:"id"`
		Body struct{}
	}
	entriesOfPage struct {
		Body struct {
			Entries []side `json:"entries" nullable:"false" doc:"what the transfer's entries are now"`
		}
	}
	side struct {
		AccountID string `json:"accountId"`
		Kind      Kind   `json:"kind"`
		Amount    int64  `json:"amount" doc:"in minor units"`
	}
)

// register adds the commands to an API.
func (r *repairer) register(api huma.API) {
	errs := []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable}
	huma.Register(api, huma.Operation{
		OperationID: "charge", Method: http.MethodPost, Path: "/payments/{orderId}/charge", Summary: "Charge for an order that should be paid", Errors: errs,
		Description: "For who has found out that a confirmed order is not paid. If it is, nothing changes, and with tell it is told once more. If it is not as it was seen, it is a 409 of the type changed-meanwhile; " +
			"if it is refused, of the type insufficient-balance, account-frozen, currency-mismatch or payment-declined; if only a person can say what the ledger holds of it, of the type unclear.",
	}, r.serveCharge)
	huma.Register(api, huma.Operation{
		OperationID: "refund", Method: http.MethodPost, Path: "/payments/{orderId}/refund", Summary: "Pay back what an order should not have paid", Errors: errs,
		Description: "For who has found out that an order that is cancelled, or not there, is paid. If it is not, nothing changes. If it is not as it was seen, it is a 409 of the type changed-meanwhile. " +
			"What cannot be paid back now waits until it can: REFUNDING. What was never charged is FAILED; where only a person can say, it is a 409 of the type unclear.",
	}, r.serveRefund)
	huma.Register(api, huma.Operation{
		OperationID: "decide-payment", Method: http.MethodPost, Path: "/payments/{orderId}/decide", Summary: "Say whether an order is paid, where the ledger does not", Errors: errs,
		Description: "For a person, where other commands are a 409 of the type unclear. All that was charged for the order and not paid back goes back; if it is to be paid, it is then charged once. " +
			"If that is so already, nothing changes. If the payment is not as it was seen, it is a 409 of the type changed-meanwhile; if the ledger is clear, of the type not-unclear; " +
			"if money cannot be moved, of the types that charge has; if a transfer lacks an entry, of the type unclear.",
	}, r.serveDecide)
	huma.Register(api, huma.Operation{
		OperationID: "recount-payment", Method: http.MethodPost, Path: "/payments/{orderId}/recount", Summary: "Make a payment's status what the ledger says", Errors: errs,
	}, r.serveRecount)
	huma.Register(api, huma.Operation{
		OperationID: "recount-account", Method: http.MethodPost, Path: "/accounts/{id}/recount", Summary: "Make an account's balance what its entries say", Errors: errs,
		Description: "If the account is on a side of a transfer that is not whole, it is a 409 of the type unclear: the balance tells what that lacks. Reads all entries.",
	}, r.serveRecountAccount)
	huma.Register(api, huma.Operation{
		OperationID: "recount-transfer", Method: http.MethodPost, Path: "/transfers/{id}/recount", Summary: "Make a transfer whole that has half of its entries", Errors: errs,
		Description: "The balances decide whether an entry is missing or one is there that should not be; where they do not, it is a 409 of the type unclear. Reads all entries.",
	}, r.serveRecountTransfer)
}

// failure is the answer to a command that failed or was refused; nil if it was neither.
func failure(ctx context.Context, err error) error {
	refused, ok := errors.AsType[*refusedError](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return web.Fault(ctx, err)
	case refused.Type == noPayment:
		return web.NotFound("%s", refused.Reason)
	}
	return web.Problem(http.StatusConflict, refused.Type, titles[refused.Type], refused.Reason)
}

func answerFact(ctx context.Context, f facts.Fact, seen, changed string, err error) (*facts.Output, error) {
	if err != nil {
		return nil, failure(ctx, err)
	}
	return facts.Reply(f, seen, changed)
}

func (r *repairer) serveCharge(ctx context.Context, in *chargeInput) (*facts.Output, error) {
	b := in.Body
	f, changed, err := r.charge(ctx, b.Seen, b.Tell, event.InventoryReservedV1{OrderID: in.OrderID, UserID: b.UserID, Amount: b.Amount, Currency: b.Currency})
	return answerFact(ctx, f, b.Seen, changed, err)
}

func (r *repairer) serveRefund(ctx context.Context, in *refundInput) (*facts.Output, error) {
	f, changed, err := r.refund(ctx, in.OrderID, in.Body.Seen, in.Body.Orphan)
	return answerFact(ctx, f, in.Body.Seen, changed, err)
}

func (r *repairer) serveDecide(ctx context.Context, in *decideInput) (*facts.Output, error) {
	b := in.Body
	f, changed, err := r.decide(ctx, b.Seen, b.Paid, event.InventoryReservedV1{OrderID: in.OrderID, UserID: b.UserID, Amount: b.Amount, Currency: b.Currency})
	return answerFact(ctx, f, b.Seen, changed, err)
}

func (r *repairer) serveRecount(ctx context.Context, in *recountInput) (*facts.Output, error) {
	f, err := r.recount(ctx, in.OrderID)
	return answerFact(ctx, f, "", "", err)
}

func (r *repairer) serveRecountAccount(ctx context.Context, in *recountAccountInput) (*accountOutput, error) {
	a, ok, err := r.recountBalance(ctx, in.ID)
	switch {
	case err != nil:
		return nil, failure(ctx, err)
	case !ok:
		return nil, noAccount(labelOf(in.ID), "")
	}
	return &accountOutput{Status: http.StatusOK, Body: a}, nil
}

func (r *repairer) serveRecountTransfer(ctx context.Context, in *recountTransferInput) (*entriesOfPage, error) {
	entries, err := r.recountTransfer(ctx, in.ID)
	switch {
	case err != nil:
		return nil, failure(ctx, err)
	case len(entries) == 0:
		return nil, web.NotFound("there are no entries of transfer %s", in.ID)
	}
	out := &entriesOfPage{}
	for _, e := range entries {
		out.Body.Entries = append(out.Body.Entries, side{ownerOf(e.account), e.kind, e.amount})
	}
	return out, nil
}
