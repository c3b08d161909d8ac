package inventory

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/web"
)

const (
	typeUnknownProduct  = "unknown-product"  // 422: there is no such product
	typeMixedCurrencies = "mixed-currencies" // 422: no order can be of both

	// maxAmount is the largest amount that an order can have.
	maxAmount = 1_000_000_000_000_000
)

type (
	quoteInput struct {
		Body struct {
			Items []Item `json:"items" minItems:"1" maxItems:"100" nullable:"false" doc:"what is to be ordered"`
		}
	}
	quoteOutput struct{ Body Quote }
)

// Quote is what items cost at the moment: an order of them with this amount and currency is reserved, unless a price
// changes before.
type Quote struct {
	Lines    []QuoteLine `json:"lines" nullable:"false" doc:"of each item, in their order"`
	Total    int64       `json:"total" doc:"an order's amount, in minor units" example:"3998"`
	Currency string      `json:"currency" example:"EUR" doc:"ISO 4217"`
}

// QuoteLine is what one item costs.
type QuoteLine struct {
	ProductID string `json:"productId" example:"sku-1"`
	Name      string `json:"name" example:"Teapot"`
	Price     int64  `json:"price" doc:"of one unit, in minor units" example:"1999"`
	Quantity  int64  `json:"quantity" doc:"units" example:"2"`
	Total     int64  `json:"total" doc:"in minor units" example:"3998"`
}

func (h handlers) registerQuotes(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "quote", Method: http.MethodPost, Path: "/quotes", Summary: "Say what items cost",
		Description: "Total and currency are what an order of these items has to have. Nothing is stored or reserved, and stock does not matter. Products that there are not are a 422 " +
			"of the type unknown-product that names each; prices in several currencies one of the type mixed-currencies.",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.quote)
}

func (h handlers) quote(ctx context.Context, in *quoteInput) (*quoteOutput, error) {
	known, err := h.priced(ctx, in.Body.Items)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	q := Quote{Lines: make([]QuoteLine, len(in.Body.Items))}
	var unknown, mixed []*huma.ErrorDetail
	lines, prices := make([]Line, len(in.Body.Items)), map[string]Money{}
	for i, item := range in.Body.Items {
		at := fmt.Sprintf("body.items[%d].productId", i)
		p, ok := known[item.ProductID]
		if !ok {
			unknown = append(unknown, web.Field(at, "expected a product that there is", item.ProductID))
			continue
		}
		if q.Currency == "" {
			q.Currency = p.Currency
		}
		if p.Currency != q.Currency {
			mixed = append(mixed, web.Field(at, fmt.Sprintf("expected a product whose price is in %s, as the first's, not in %s", q.Currency, p.Currency), item.ProductID))
		}
		lines[i], prices[p.ID] = Line(item), Money{p.Price, p.Currency}
		q.Lines[i] = QuoteLine{ProductID: p.ID, Name: p.Name, Price: p.Price, Quantity: item.Quantity, Total: p.Price * item.Quantity}
	}
	switch total := cost(lines, prices); {
	case len(unknown) > 0:
		return nil, web.Problem(http.StatusUnprocessableEntity, typeUnknownProduct, "Unknown product",
			fmt.Sprintf("%d of the items are of no product that there is", len(unknown)), unknown...)
	case len(mixed) > 0:
		return nil, web.Problem(http.StatusUnprocessableEntity, typeMixedCurrencies, "Mixed currencies",
			"an order has one currency, and the prices of these items have several", mixed...)
	case !total.IsInt64() || total.Int64() > maxAmount:
		return nil, web.Invalid(web.Field("body.items", fmt.Sprintf("expected items that cost at most %d together, as an order does", int64(maxAmount)), total.String()))
	default:
		q.Total = total.Int64()
		return &quoteOutput{Body: q}, nil
	}
}

// priced returns the products of the items, by id, of one moment.
func (h handlers) priced(ctx context.Context, items []Item) (map[string]Product, error) {
	ids := make([]string, len(items))
	for i, item := range items {
		ids[i] = item.ProductID
	}
	rows, _ := h.db.Query(ctx, pricedProductsSQL, distinct(ids)) // the error surfaces in the collector
	products, err := pgx.CollectRows(rows, pgx.RowToStructByName[Product])
	if err != nil {
		return nil, fmt.Errorf("read the prices of %d items: %w", len(items), err)
	}
	known := make(map[string]Product, len(products))
	for _, p := range products {
		known[p.ID] = p
	}
	return known, nil
}
