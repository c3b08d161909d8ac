package payment

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/web"
)

type (
	paymentInput struct {
		OrderID uuid.UUID `path:"orderId"`
	}
	paymentOutput struct{ Body Record }
)

// register adds payment's operations to an API.
func register(api huma.API, db *pgxpool.Pool) {
	huma.Register(api, huma.Operation{
		OperationID: "get-payment", Method: http.MethodGet, Path: "/payments/{orderId}", Summary: "Show the payment of an order",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *paymentInput) (*paymentOutput, error) {
		p, ok, err := findPayment(ctx, db, in.OrderID)
		switch {
		case err != nil:
			return nil, web.Fault(ctx, err)
		case !ok:
			return nil, web.NotFound("order %s has no payment; if it is new, its event may be on its way", in.OrderID)
		}
		return &paymentOutput{Body: p}, nil
	})
}
