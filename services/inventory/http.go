package inventory

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/web"
)

// Product is a product and where its units are: Available and Reserved add up to Stock.
type Product struct {
	ID        string    `json:"productId" example:"sku-1"`
	Name      string    `json:"name" example:"Teapot"`
	Price     int64     `json:"price" doc:"of one unit, in minor units" example:"1999"`
	Currency  string    `json:"currency" example:"EUR" doc:"ISO 4217"`
	Stock     int64     `json:"stock" doc:"units put in" example:"100"`
	Available int64     `json:"available" doc:"units that can be reserved" example:"97"`
	Reserved  int64     `json:"reserved" doc:"units that orders hold" example:"3"`
	Version   int64     `json:"version" doc:"of what product.updated tells: it grows when the product is set, restocked, sold out or in stock again"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// updated is what is told of the product.
func (p Product) updated() event.ProductUpdatedV1 {
	return event.ProductUpdatedV1{
		ProductID: p.ID, Version: p.Version, Name: p.Name, Price: p.Price, Currency: p.Currency, Stock: stockOf(p.Available),
	}
}

// Draft is what a product is set to. The limits in the tags are the ones that the API describes and holds it to.
type Draft struct {
	Name     string `json:"name" minLength:"1" maxLength:"200" example:"Teapot"`
	Price    int64  `json:"price" minimum:"0" maximum:"1000000000000" doc:"of one unit, in minor units" example:"1999"`
	Currency string `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
	Stock    int64  `json:"stock" minimum:"0" maximum:"1000000000000" doc:"units put in, the reserved ones among them" example:"100"`
}

// Record is a reservation with its times, as it is stored.
type Record struct {
	Reservation
	CreatedAt  time.Time  `json:"createdAt"`
	ReleasedAt *time.Time `json:"releasedAt,omitempty"`
}

type (
	// ProductPath is exported because huma passes over what it embeds otherwise.
	ProductPath struct {
		ID string `path:"id" pattern:"^[A-Za-z0-9._-]{1,64}$" patternDescription:"1 to 64 letters, digits, dots, dashes and underscores" example:"sku-1" doc:"the product's id"`
	}
	putInput struct {
		ProductPath
		Body Draft
	}
	restockInput struct {
		ProductPath
		Body struct {
			Quantity int64 `json:"quantity" minimum:"1" maximum:"1000000000000" doc:"units to put in" example:"10"`
		}
	}
	listInput struct {
		Limit  int    `query:"limit" default:"20" minimum:"1" maximum:"100" doc:"products on a page at most"`
		Cursor string `query:"cursor" pattern:"^[A-Za-z0-9._-]{1,64}$" patternDescription:"the nextCursor of the page before" doc:"where the page begins"`
	}
	reservationInput struct {
		OrderID uuid.UUID `path:"orderId"`
	}
	productOutput struct {
		Status int
		Body   Product
	}
	listOutput struct {
		Body struct {
			Products   []Product `json:"products" nullable:"false" doc:"by id"`
			NextCursor string    `json:"nextCursor,omitempty" doc:"absent on the last page"`
		}
	}
	reservationOutput struct{ Body Record }
)

// handlers answer the API's requests.
type handlers struct {
	db    *pgxpool.Pool
	relay *outbox.Relay // nil: events wait in the outbox
}

// register adds inventory's operations to an API.
func register(api huma.API, db *pgxpool.Pool, relay *outbox.Relay) {
	h := handlers{db, relay}
	huma.Register(api, huma.Operation{
		OperationID: "put-product", Method: http.MethodPut, Path: "/products/{id}", Summary: "Create a product or change it",
		Description: "Sets everything about the product. Of the stock, what orders hold stays reserved and the rest becomes available; " +
			"a stock below what they hold is refused. Sending it again changes nothing more.",
		Errors: []int{http.StatusConflict, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{
			"200": {Description: "Changed"},
			"201": {Description: "Created", Content: map[string]*huma.MediaType{"application/json": {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Product](), true, ""),
			}}},
		},
	}, h.put)
	huma.Register(api, huma.Operation{
		OperationID: "restock-product", Method: http.MethodPost, Path: "/products/{id}/restock", Summary: "Put more units of a product in",
		Description: "Adds each time it is sent. Whoever is not sure that it arrived reads the product and sets its stock with PUT instead.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable},
	}, h.restock)
	huma.Register(api, huma.Operation{
		OperationID: "get-product", Method: http.MethodGet, Path: "/products/{id}", Summary: "Show a product and its stock",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, h.get)
	huma.Register(api, huma.Operation{
		OperationID: "list-products", Method: http.MethodGet, Path: "/products", Summary: "List products, by id",
		Errors: []int{http.StatusServiceUnavailable},
	}, h.list)
	huma.Register(api, huma.Operation{
		OperationID: "get-reservation", Method: http.MethodGet, Path: "/reservations/{orderId}", Summary: "Show what is reserved for an order",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, h.reservation)
	h.registerQuotes(api)
}

func (h handlers) put(ctx context.Context, in *putInput) (*productOutput, error) {
	p, created, err := putProduct(ctx, h.db, in.ID, in.Body)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case p.Reserved > in.Body.Stock:
		detail := fmt.Sprintf("orders hold %d units of %s, a stock of %d cannot be", p.Reserved, in.ID, in.Body.Stock)
		return nil, web.Problem(http.StatusConflict, "stock-below-reserved", "Stock below what is reserved", detail,
			web.Field("body.stock", fmt.Sprintf("expected at least %d", p.Reserved), in.Body.Stock))
	}
	h.relay.Wake()
	if created {
		return &productOutput{Status: http.StatusCreated, Body: p}, nil
	}
	return &productOutput{Status: http.StatusOK, Body: p}, nil
}

func (h handlers) restock(ctx context.Context, in *restockInput) (*productOutput, error) {
	p, ok, err := restockProduct(ctx, h.db, in.ID, in.Body.Quantity)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case ok:
		h.relay.Wake()
		return &productOutput{Status: http.StatusOK, Body: p}, nil
	case p.ID == "":
		return nil, noProduct(in.ID)
	}
	room := maxUnits - p.Stock
	return nil, web.Problem(http.StatusConflict, "stock-limit", "Too many units", fmt.Sprintf("%s has room for %d more units", in.ID, room),
		web.Field("body.quantity", fmt.Sprintf("expected at most %d", room), in.Body.Quantity))
}

func (h handlers) get(ctx context.Context, in *ProductPath) (*productOutput, error) {
	p, ok, err := findProduct(ctx, h.db, in.ID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, noProduct(in.ID)
	}
	return &productOutput{Status: http.StatusOK, Body: p}, nil
}

func (h handlers) list(ctx context.Context, in *listInput) (*listOutput, error) {
	products, err := listProducts(ctx, h.db, in.Cursor, in.Limit+1)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &listOutput{}
	if len(products) > in.Limit {
		products = products[:in.Limit]
		out.Body.NextCursor = products[in.Limit-1].ID
	}
	out.Body.Products = products
	return out, nil
}

func (h handlers) reservation(ctx context.Context, in *reservationInput) (*reservationOutput, error) {
	r, ok, err := findReservation(ctx, h.db, in.OrderID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, web.NotFound("nothing is known here of order %s; if it is new, its event may be on its way", in.OrderID)
	}
	return &reservationOutput{Body: r}, nil
}

func noProduct(id string) error { return web.NotFound("there is no product %s", id) }
