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
	Stock     int64     `json:"stock" doc:"units on the shelf: what its movements make" example:"100"`
	Available int64     `json:"available" doc:"units that can be reserved; below zero when fewer are there than orders hold" example:"97"`
	Reserved  int64     `json:"reserved" doc:"units that orders hold" example:"3"`
	Version   int64     `json:"version" doc:"of what product.updated tells: it grows when the product is set, its stock moves, it is sold out or in stock again"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`

	Description string `json:"description,omitempty" example:"For four cups." doc:"absent where there is none"`
}

// updated is what is told of the product.
func (p Product) updated() event.ProductUpdatedV1 {
	return event.ProductUpdatedV1{
		ProductID: p.ID, Version: p.Version, Name: p.Name, Price: p.Price, Currency: p.Currency, Stock: stockOf(p.Available),
	}
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
	// The limits in the tags are the ones that the API describes and holds a product to.
	putInput struct {
		ProductPath
		IfMatch     string `header:"If-Match" maxLength:"1000" example:"\"1f2e3d4c5b6a7988-1-a\"" doc:"the ETag of the product that is to be changed; * means any"`
		IfNoneMatch string `header:"If-None-Match" maxLength:"1000" example:"*" doc:"* : only if there is no such product yet; ETags: only if its ETag is none of these"`
		Body        struct {
			Name     string `json:"name" minLength:"1" maxLength:"200" example:"Teapot"`
			Price    int64  `json:"price" minimum:"0" maximum:"1000000000000" doc:"of one unit, in minor units" example:"1999"`
			Currency string `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
			Stock    *int64 `json:"stock,omitempty" minimum:"0" maximum:"1000000000000" doc:"units that a new product begins with, none if it is not given; movements change the stock from then on" example:"100"`

			Description string `json:"description,omitempty" maxLength:"2000" example:"For four cups." doc:"a change without one takes away the one there was"`
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
		ETag   string `header:"ETag" doc:"of the product as it is; a change names it in If-Match"`
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
		Description: "Sets name, description, price and currency, all of them: a description that is not given is empty from then on. A change names in If-Match the product that it replaces, and fails with 412 when another has changed these since; without If-Match it fails " +
			"with 428. The stock is set only when the product is created: to change it, POST a movement. A request that is sent again, because its answer was lost, changes nothing more.",
		Errors: []int{http.StatusPreconditionFailed, http.StatusPreconditionRequired, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{
			"200": {Description: "Changed"},
			"201": {Description: "Created", Content: map[string]*huma.MediaType{"application/json": {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Product](), true, ""),
			}}},
		},
	}, h.put)
	h.registerMovements(api)
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
	c, err := web.ParseCondition(in.IfMatch, in.IfNoneMatch)
	if err != nil {
		return nil, err
	}
	d, said := Draft{Name: in.Body.Name, Description: in.Body.Description, Price: in.Body.Price, Currency: in.Body.Currency}, in.Body.Stock != nil
	if said {
		d.Stock = *in.Body.Stock
	}
	p, v, err := put(ctx, h.db, in.ID, d, said, c)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case v == blind:
		return nil, web.PreconditionRequired(fmt.Sprintf("%s exists: say with If-Match what this replaces", in.ID))
	case v == conflict:
		detail := fmt.Sprintf("%s is another by now", in.ID)
		if p.ID == "" {
			detail = fmt.Sprintf("there is no product %s yet", in.ID)
		}
		return nil, web.VersionConflict(detail)
	case v == moves:
		return nil, web.Invalid(web.Field("body.stock",
			fmt.Sprintf("expected none: %s exists, and POST /products/%s/movements changes its stock, which is %d", in.ID, in.ID, p.Stock), d.Stock))
	case v == create:
		h.relay.Wake()
		return productAnswer(http.StatusCreated, p), nil
	}
	h.relay.Wake()
	return productAnswer(http.StatusOK, p), nil
}

func productAnswer(status int, p Product) *productOutput {
	return &productOutput{Status: status, ETag: p.etag(), Body: p}
}

func (h handlers) get(ctx context.Context, in *ProductPath) (*productOutput, error) {
	p, ok, err := findProduct(ctx, h.db, in.ID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, noProduct(in.ID)
	}
	return productAnswer(http.StatusOK, p), nil
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
