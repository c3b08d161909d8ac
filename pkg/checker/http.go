package checker

import (
	"cmp"
	"context"
	"errors"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// typeCannotLook is the type of the problem that a service could not be asked: 503. It is no finding, and no clean
// check either.
const typeCannotLook = "cannot-look"

type (
	checkInput struct {
		Body struct {
			OrderID uuid.UUID `json:"orderId,omitzero" doc:"check only this order; one that is on its way is not judged"`
			Since   time.Time `json:"since,omitzero" doc:"check the orders that were placed since then; without it all of them, the stock and the ledger, too" example:"2026-11-25T00:00:00Z"`
			Full    bool      `json:"full,omitempty" doc:"of a check of everything: read what was audited before again, too; it may take long"`
			Repair  bool      `json:"repair,omitempty" doc:"repair what is found; otherwise only tell"`
			Confirm bool      `json:"confirm,omitempty" doc:"somebody has looked at why the brake holds (braked): repair all the same, and take the databases that answer for the right ones"`
			By      string    `json:"by,omitempty" maxLength:"100" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of up to 100 characters without control characters" doc:"who asks, for the record"`
		}
	}
	checkOutput  struct{ Body Record }
	repairsInput struct {
		OrderID uuid.UUID `query:"orderId" doc:"only of this order"`
		Limit   int       `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"repairs in the page at most"`
		Cursor  string    `query:"cursor" doc:"nextCursor of the page before"`
	}
	repairsOutput struct {
		Body struct {
			Repairs    []Repaired `json:"repairs" nullable:"false" doc:"the newest first"`
			NextCursor string     `json:"nextCursor,omitempty" doc:"cursor of the next page; none after the last one"`
		}
	}
)

// handlers answer the API's requests.
type handlers struct {
	runner   *runner
	records  *records
	services []Service
}

// register adds the checker's operations to an API.
func (h *handlers) register(api huma.API) {
	describeHeld(api.OpenAPI().Components.Schemas, h.services)
	h.registerAcknowledgements(api)
	huma.Register(api, huma.Operation{
		OperationID: "check", Method: http.MethodPost, Path: "/checks", Summary: "Check that the services agree",
		Description: "Compares what " + namesOf(h.services) + " hold, and answers when that is done. A part that cannot look, an audit for example, does not keep " +
			"the others from it, and is in failed: such a check is not a clean one. If none can look, it is a 503 of the type cannot-look. Without repair nothing is changed. " +
			"With it, what is found is repaired by the services' own commands, each of which looks again before it changes anything; twice is as good as once. " +
			"More findings than are likely, and a database that is not the one it was, are not repaired before somebody confirms it.",
		Errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.check)
	huma.Register(api, huma.Operation{
		OperationID: "latest-check", Method: http.MethodGet, Path: "/checks/latest", Summary: "Show the last check",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, h.latest)
	huma.Register(api, huma.Operation{
		OperationID: "list-repairs", Method: http.MethodGet, Path: "/repairs", Summary: "List what was repaired, newest first",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.repairs)
}

// namesOf lists services as text has them: "order, inventory and payment".
func namesOf(services []Service) string {
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = s.Name
	}
	last := max(0, len(names)-1)
	return strings.TrimPrefix(strings.Join(names[:last], ", ")+" and "+strings.Join(names[last:], ""), " and ")
}

// heldName is the schema of [Held].
const heldName = "Held"

// describeHeld says what the services hold of a thing, by the names that this checker's have.
func describeHeld(r huma.Registry, services []Service) {
	fact := r.Schema(reflect.TypeFor[facts.Fact](), true, "")
	s := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: false, Properties: map[string]*huma.Schema{}}
	for _, one := range services {
		s.Properties[cmp.Or(one.Holds, one.Name)] = fact
	}
	r.Map()[heldName] = s
}

// Schema implements [huma.SchemaProvider]: by the names of the services that the API's checker has.
func (Held) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Ref: "#/components/schemas/" + heldName}
}

func (h *handlers) check(ctx context.Context, in *checkInput) (*checkOutput, error) {
	b := in.Body
	if b.OrderID != uuid.Nil && !b.Since.IsZero() {
		return nil, web.Invalid(web.Field("body.since", "expected no orderId beside it", b.Since.Format(time.RFC3339)))
	}
	if b.By == "" {
		b.By = "somebody"
	}
	record, err := h.runner.check(ctx, Request{Order: b.OrderID, Since: b.Since, Full: b.Full, Repair: b.Repair, Confirm: b.Confirm, By: b.By})
	switch {
	case errors.Is(err, ErrUnknownOrder):
		return nil, web.NotFound("no service knows of order %s", b.OrderID)
	case errors.Is(err, errStopping):
		return nil, web.Unavailable(err)
	case err != nil && ctx.Err() == nil:
		return nil, web.Problem(http.StatusServiceUnavailable, typeCannotLook, "Cannot look", err.Error())
	case err != nil:
		return nil, web.Fault(ctx, err)
	}
	return &checkOutput{Body: record}, nil
}

func (h *handlers) latest(ctx context.Context, _ *struct{}) (*checkOutput, error) {
	record, ok, err := h.records.latest(ctx)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, web.NotFound("nothing was checked yet")
	}
	return &checkOutput{Body: record}, nil
}

func (h *handlers) repairs(ctx context.Context, in *repairsInput) (*repairsOutput, error) {
	before, err := web.ParseCursor(in.Cursor, math.MaxInt64, func(n string) (int64, error) { return strconv.ParseInt(n, 10, 64) })
	if err != nil {
		return nil, err
	}
	all, err := h.records.repairs(ctx, in.OrderID, before, in.Limit+1)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &repairsOutput{}
	if len(all) > in.Limit {
		all = all[:in.Limit]
		out.Body.NextCursor = web.Cursor(strconv.FormatInt(all[in.Limit-1].n, 10))
	}
	out.Body.Repairs = all
	return out, nil
}
