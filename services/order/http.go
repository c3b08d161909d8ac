package order

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/web"
)

// typeNotYours is the type of the problem with a request to cancel somebody else's order.
const typeNotYours = "not-your-order" // 403

// handlers answer the API's requests.
type handlers struct {
	db    *pgxpool.Pool
	place func(context.Context, posting) (answer, error)
	waits *waiters // nil: nobody may wait

	cancel func(ctx context.Context, id uuid.UUID, user, reason string) (*Order, error)

	reconcile func(ctx context.Context, id uuid.UUID, found comparison) (*Order, Status, error)
}

func (h *handlers) register(api huma.API) {
	orderSchema := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Order](), true, "Order")
	placed := map[string]*huma.Response{
		"200": {Description: "The order as it has settled, CONFIRMED or CANCELLED, for who prefers to wait", Content: jsonOf(orderSchema)},
		"202": {Description: "The order as stored", Content: jsonOf(orderSchema)},
	}
	huma.Register(api, huma.Operation{
		OperationID: "place-order", Method: http.MethodPost, Path: "/orders", DefaultStatus: http.StatusAccepted,
		Summary: "Place an order",
		Description: "Answers as soon as the order is durable. It is PENDING then; its URL tells how it settles. " +
			"With Prefer: wait=N it answers as soon as the order has settled, or after N seconds with what it is by then. " +
			"With an Idempotency-Key the request can be sent again safely: the first answer comes back, unless it prefers to wait: then the order as it is.",
		Responses: placed,
		Errors:    []int{http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.create)
	placed["200"].Headers = placed["202"].Headers
	huma.Register(api, huma.Operation{
		OperationID: "get-order", Method: http.MethodGet, Path: "/orders/{id}", Summary: "Look at an order",
		Description: "With wait it answers as soon as the order has settled, CONFIRMED or CANCELLED, or when that time is over with what it is by then.",
		Errors:      []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.get)
	huma.Register(api, huma.Operation{
		OperationID: "list-orders", Method: http.MethodGet, Path: "/orders", Summary: "List orders, newest first",
		Description: "A page can be short, even empty, and not be the last: that is the one without nextCursor.",
		Errors:      []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.list)
	huma.Register(api, huma.Operation{
		OperationID: "cancel-order", Method: http.MethodPost, Path: "/orders/{id}/cancel", DefaultStatus: http.StatusAccepted,
		Summary: "Cancel an order",
		Description: "Only its user may. A PENDING order is CANCELLED then; a CONFIRMED one is CANCELLING until it is paid back and its items are " +
			"released, which its compensations tell. One that is cancelled already stays as it is, so the request can be sent again safely.",
		Errors: []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.cancelOrder)
	h.registerEvents(api)
	h.registerReconcile(api)
}

func jsonOf(s *huma.Schema) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: s}}
}

type createInput struct {
	Key    string `header:"Idempotency-Key" patternDescription:"one key of 1 to 255 ASCII characters, in double quotes, or plain without blanks and commas" example:"\"01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f\"" doc:"makes it safe to send the request again: the first answer comes back"`
	Prefer string `header:"Prefer" example:"wait=5" doc:"RFC 7240; wait=N: answer when the order has settled, or after N seconds, at most 30. Other preferences are ignored"`
	Body   Draft

	wait time.Duration
}

// Resolve reads the key and the preferences. An empty key, which would protect from nothing, and several are refused.
func (in *createInput) Resolve(hc huma.Context) []error {
	var given, preferences []string
	hc.EachHeader(func(name, value string) {
		switch name {
		case "Idempotency-Key":
			given = append(given, value)
		case "Prefer":
			preferences = append(preferences, value)
		}
	})
	in.wait = preferred(preferences)
	if len(given) == 0 {
		return nil
	}
	key, err := idempotency.ParseKey(given[0])
	if err != nil || len(given) > 1 {
		return []error{&huma.ErrorDetail{Location: "header.Idempotency-Key", Value: given[0]}} // web says what is expected
	}
	in.Key = key
	return nil
}

type createOutput struct {
	Status      int
	ContentType string `header:"Content-Type" hidden:"true"`
	Location    string `header:"Location" doc:"the order's path"`
	Replayed    string `header:"Idempotency-Replayed" doc:"true if an earlier request placed the order, or was refused"`
	Applied     string `header:"Preference-Applied" doc:"the wait that was granted, if one was" example:"wait=5"`
	Body        []byte
}

func (h *handlers) create(ctx context.Context, in *createInput) (*createOutput, error) {
	p := newPosting(ctx, in.Body, in.Key, clock.Now())
	until := time.Now().Add(in.wait)
	var w *waiter
	if in.wait > 0 && p.order != nil {
		w = h.expect(p.order) // before it is placed, so that no change is missed
		defer w.leave()
	}
	a := p.answer
	if p.order != nil || p.key != nil {
		var err error
		if a, err = h.place(ctx, p); err != nil {
			return nil, web.Fault(ctx, err)
		}
	}
	out := &createOutput{Status: a.Status, ContentType: a.Header["Content-Type"], Location: a.Header["Location"], Body: a.Body}
	if a.replayed {
		out.Replayed = "true"
	}
	if in.wait == 0 || a.Status != http.StatusAccepted {
		return out, nil
	}
	o := p.order
	if a.replayed {
		w.leave() // what it waits for was not placed
		if o, w = h.expectEarlier(ctx, a.Header["Location"]); w != nil {
			defer w.leave()
		}
	}
	if w == nil {
		return out, nil
	}
	if err := w.await(ctx, o, until); err != nil {
		return nil, err
	}
	if out.Applied = fmt.Sprintf("wait=%d", in.wait/time.Second); o.SettledAt != nil {
		out.Status = http.StatusOK
	}
	out.Body = encode(o)
	return out, nil
}

type cancelInput struct {
	ID   uuid.UUID `path:"id"`
	Body struct {
		UserID string `json:"userId" minLength:"1" maxLength:"128" doc:"who commands; the order must be this user's" example:"u-1"`
		Reason string `json:"reason" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 256 characters without control characters" example:"changed my mind"`
	}
}

// cancelOrder answers with the order as it is then. An answer that is lost does not matter: asked again, nothing
// happens again.
func (h *handlers) cancelOrder(ctx context.Context, in *cancelInput) (*struct{ Body Order }, error) {
	o, err := h.cancel(ctx, in.ID, in.Body.UserID, in.Body.Reason)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case o == nil:
		return nil, web.NotFound("there is no order %s", in.ID)
	case o.UserID != in.Body.UserID:
		return nil, web.Problem(http.StatusForbidden, typeNotYours, "Not your order", "only the user who placed an order may cancel it",
			web.Field("body.userId", "expected the order's user", in.Body.UserID))
	}
	return &struct{ Body Order }{*o}, nil
}

type listInput struct {
	UserID string `query:"userId" maxLength:"128" doc:"only this user's orders"`
	Status Status `query:"status" enum:"PENDING,CONFIRMED,CANCELLING,CANCELLED" doc:"only orders of this status"`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"orders in the page at most"`
	Cursor string `query:"cursor" doc:"nextCursor of the page before"`
}

// scanned bounds the rows that one page looks at.
const scanned = 10_000

type pageBody struct {
	Orders     []Order `json:"orders" nullable:"false"`
	NextCursor string  `json:"nextCursor,omitempty" doc:"cursor of the next page; none after the last one"`
}

func (h *handlers) list(ctx context.Context, in *listInput) (*struct{ Body pageBody }, error) {
	before, err := web.ParseCursor(in.Cursor, uuid.Max, func(id string) (uuid.UUID, error) { return uuid.FromBytes([]byte(id)) })
	if err != nil {
		return nil, err
	}
	page, next, err := list(ctx, h.db, filter{user: in.UserID, status: in.Status, before: before, limit: in.Limit, scan: scanned})
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	body := pageBody{Orders: page}
	if next != uuid.Nil {
		body.NextCursor = web.Cursor(string(next[:]))
	}
	return &struct{ Body pageBody }{body}, nil
}
