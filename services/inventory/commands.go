package inventory

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// Types of problems: 409.
const (
	typeOutOfStock     = "out-of-stock"    // there is not enough of a product
	typeProductMissing = "product-missing" // orders hold units of a product whose row is lost
)

type (
	// OrderPath is exported because huma passes over what it embeds otherwise.
	OrderPath struct {
		OrderID uuid.UUID `path:"orderId"`
	}
	reserveInput struct {
		OrderPath
		Body struct {
			Seen  string `json:"seen" enum:"NONE,RESERVED,RELEASED,REFUSED" doc:"the reservation's status as the sender has seen it"`
			Items []Item `json:"items" minItems:"1" maxItems:"100" nullable:"false"`
		}
	}
	// Item is what is to be reserved of a product.
	Item struct {
		ProductID string `json:"productId" pattern:"^[A-Za-z0-9._-]{1,64}$" patternDescription:"1 to 64 letters, digits, dots, dashes and underscores" example:"sku-1"`
		Quantity  int64  `json:"quantity" minimum:"1" maximum:"1000000" doc:"units"`
	}
	releaseInput struct {
		OrderPath
		Body struct {
			Seen   string `json:"seen" enum:"NONE,RESERVED,RELEASED,REFUSED" doc:"the reservation's status as the sender has seen it"`
			Orphan bool   `json:"orphan,omitempty" doc:"order does not know the order: nobody is told"`
		}
	}
	recountInput struct {
		ProductPath
		Body struct{}
	}
)

// register adds the commands to an API.
func (r *repairer) register(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "reserve", Method: http.MethodPost, Path: "/reservations/{orderId}/reserve", Summary: "Reserve for an order that should have it",
		Description: "For who has found out that a confirmed order has nothing reserved. If it has, nothing changes. If it is not as it was seen, it is a 409 of the " +
			"type changed-meanwhile; if there is not enough, of the type out-of-stock.",
		Errors: []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, r.serveReserve)
	huma.Register(api, huma.Operation{
		OperationID: "release", Method: http.MethodPost, Path: "/reservations/{orderId}/release", Summary: "Release what an order should not hold",
		Description: "For who has found out that an order that is cancelled, or not there, holds stock. If it holds nothing, nothing changes. If it is not as it was seen, it is a 409 " +
			"of the type changed-meanwhile.",
		Errors: []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, r.serveRelease)
	huma.Register(api, huma.Operation{
		OperationID: "recount-product", Method: http.MethodPost, Path: "/products/{id}/recount", Summary: "Count anew a product's units",
		Description: "What its movements make is on the shelf, what reservations hold is reserved. Reads all reservations. If the numbers are right, nothing changes. Movements that are missing or " +
			"changed are a 409 of the type movements-broken: send a movement that counts what is there. More held than is there, of which the product does not know, is a 409 of the type stock-below-reserved; " +
			"a product whose row is lost is one of the type product-missing: put it again.",
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, r.serveRecount)
}

func (r *repairer) serveReserve(ctx context.Context, in *reserveInput) (*facts.Output, error) {
	lines := make([]Line, len(in.Body.Items))
	for i, item := range in.Body.Items {
		lines[i] = Line(item)
	}
	f, v, err := r.reserve(ctx, in.OrderID, in.Body.Seen, lines)
	return answer(ctx, f, v, in.Body.Seen, err)
}

func (r *repairer) serveRelease(ctx context.Context, in *releaseInput) (*facts.Output, error) {
	f, v, err := r.release(ctx, in.OrderID, in.Body.Seen, in.Body.Orphan)
	return answer(ctx, f, v, in.Body.Seen, err)
}

func answer(ctx context.Context, f facts.Fact, v verdict, seen string, err error) (*facts.Output, error) {
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case v.refusal != "":
		return nil, web.Problem(http.StatusConflict, typeOutOfStock, "Out of stock", v.refusal)
	}
	return facts.Reply(f, seen, v.changed)
}

func (r *repairer) serveRecount(ctx context.Context, in *recountInput) (*productOutput, error) {
	p, d, ok, err := r.recount(ctx, in.ID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case d.typ != "":
		return nil, web.Problem(http.StatusConflict, d.typ, d.title, d.detail)
	case !ok:
		return nil, noProduct(in.ID)
	}
	return productAnswer(http.StatusOK, p), nil
}
