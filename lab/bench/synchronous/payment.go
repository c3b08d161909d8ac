package synchronous

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/web"
)

// payments is the payment service.
type payments struct{ declined []string }

func (p payments) register(api huma.API, db *pgxpool.Pool) {
	huma.Register(api, huma.Operation{OperationID: "charge", Method: http.MethodPut, Path: "/payments/{orderId}", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			ID   uuid.UUID `path:"orderId"`
			Body charge
		},
		) (*empty, error) {
			status, reason, err := p.charge(ctx, db, in.ID, in.Body)
			switch {
			case err != nil:
				return nil, web.Fault(ctx, err)
			case status != "COMPLETED":
				return nil, web.Problem(http.StatusPaymentRequired, "not-paid", "Not paid", reason)
			}
			return &empty{}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "refund", Method: http.MethodDelete, Path: "/payments/{orderId}", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *orderPath) (*empty, error) {
			if _, err := db.Exec(ctx, refundSQL, in.ID, clock.NewID()); err != nil {
				return nil, web.Fault(ctx, fmt.Errorf("refund order %s: %w", in.ID, err))
			}
			return &empty{}, nil
		})
}

const (
	// An order that was here before keeps its outcome, which is returned: the row is its own update.
	chargeSQL = `INSERT INTO payments AS p (order_id, id, user_id, amount, currency, status, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (order_id) DO UPDATE SET status = p.status RETURNING status, reason`

	// An order that was not charged for yet never will be.
	refundSQL = `INSERT INTO payments AS p (order_id, id, user_id, amount, currency, status, reason) VALUES ($1, $2, '', 0, '', 'REFUNDED', 'refunded')
ON CONFLICT (order_id) DO UPDATE SET status = 'REFUNDED', reason = 'refunded' WHERE p.status = 'COMPLETED'`
)

// charge charges once, in one statement, and returns the order's outcome.
func (p payments) charge(ctx context.Context, db *pgxpool.Pool, order uuid.UUID, c charge) (status, reason string, err error) {
	status = "COMPLETED"
	if slices.Contains(p.declined, c.UserID) {
		status, reason = "FAILED", fmt.Sprintf("user %s is declined", c.UserID)
	}
	if err := db.QueryRow(ctx, chargeSQL, order, clock.NewID(), c.UserID, c.Amount, c.Currency, status, reason).Scan(&status, &reason); err != nil {
		return "", "", fmt.Errorf("charge for order %s: %w", order, err)
	}
	return status, reason, nil
}
