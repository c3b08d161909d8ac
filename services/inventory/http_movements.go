package inventory

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/web"
)

type (
	moveInput struct {
		ProductPath
		Body struct {
			ID    uuid.UUID `json:"movementId" doc:"makes it safe to send the request again: the first answer comes back"`
			Kind  Kind      `json:"kind" enum:"receipt,loss,count" doc:"receipt: units came; loss: units are gone; count: so many are on the shelf, the reserved ones among them"`
			Units int64     `json:"units" minimum:"0" maximum:"1000000000000" doc:"a receipt or a loss is of at least one" example:"10"`
			Note  string    `json:"note,omitempty" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of at most 256 characters without control characters" doc:"for people" example:"delivery 4711"`
		}
	}
	moveOutput     struct{ Body Movement }
	movementsInput struct {
		ProductPath
		Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"movements in the page at most"`
		Cursor string `query:"cursor" doc:"nextCursor of the page before"`
	}
	movementsOutput struct {
		Body struct {
			Movements  []Movement `json:"movements" nullable:"false" doc:"the newest first"`
			NextCursor string     `json:"nextCursor,omitempty" doc:"cursor of the next page; none after the last one"`
		}
	}
)

// registerMovements adds what moves and lists units to an API.
func (h handlers) registerMovements(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "move-stock", Method: http.MethodPost, Path: "/products/{id}/movements", Summary: "Put units of a product in, take lost ones out, or say how many there are",
		DefaultStatus: http.StatusCreated,
		Description: "The same movementId gets the first answer again. A count says what is on the shelf, whatever is reserved: if that is less than what orders hold, available is below " +
			"zero, and nothing is sold until enough has come. A loss of more units than there are by the books is a 409 of the type stock-below-zero: send a count.",
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.move)
	huma.Register(api, huma.Operation{
		OperationID: "list-movements", Method: http.MethodGet, Path: "/products/{id}/movements", Summary: "List a product's movements, newest first",
		Errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.movements)
}

func (h handlers) move(ctx context.Context, in *moveInput) (*moveOutput, error) {
	b := &in.Body
	if b.Units == 0 && b.Kind != Count {
		return nil, web.Invalid(web.Field("body.units", fmt.Sprintf("expected at least 1 for a %s", b.Kind), b.Units))
	}
	m, p, v, err := move(ctx, h.db, Movement{ID: b.ID, ProductID: in.ID, Kind: b.Kind, Units: b.Units, Note: b.Note})
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case v == unknown:
		return nil, noProduct(in.ID)
	case v == idReused:
		return nil, web.Problem(http.StatusUnprocessableEntity, "movement-id-reused", "Id reused", "the id belongs to another movement; send this one with an id of its own",
			web.Field("body.movementId", "expected an id that was not used for another movement", b.ID.String()))
	case v == aboveLimit:
		room := maxUnits - p.Stock
		return nil, web.Problem(http.StatusConflict, "stock-limit", "Too many units", fmt.Sprintf("%s has room for %d more units", in.ID, room),
			web.Field("body.units", fmt.Sprintf("expected at most %d", room), b.Units))
	case v == moreThanThere:
		return nil, web.Problem(http.StatusConflict, "stock-below-zero", "Stock below zero",
			fmt.Sprintf("%s has %d units by the books; a count says how many there are", in.ID, p.Stock),
			web.Field("body.units", fmt.Sprintf("expected at most %d", p.Stock), b.Units))
	}
	h.relay.Wake()
	return &moveOutput{Body: m}, nil
}

func (h handlers) movements(ctx context.Context, in *movementsInput) (*movementsOutput, error) {
	before, err := web.ParseCursor(in.Cursor, math.MaxInt64, func(n string) (int64, error) { return strconv.ParseInt(n, 10, 64) })
	if err != nil {
		return nil, err
	}
	if _, err := h.get(ctx, &in.ProductPath); err != nil {
		return nil, err
	}
	all, err := listMovements(ctx, h.db, in.ID, before, in.Limit+1)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &movementsOutput{}
	if len(all) > in.Limit {
		all = all[:in.Limit]
		out.Body.NextCursor = web.Cursor(strconv.FormatInt(all[in.Limit-1].N, 10))
	}
	out.Body.Movements = all
	return out, nil
}
