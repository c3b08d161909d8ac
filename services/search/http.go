package search

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/web"
)

type (
	findInput struct {
		Q     string `query:"q" required:"true" minLength:"1" maxLength:"200" pattern:"^[^\\x00]*$" example:"grindr" doc:"words or their beginnings, misspelt or not, in any script and form; or an id. What has the words as they are, with their signs (usb-3, node.js), comes first"`
		Type  Kind   `query:"type" enum:"user,product" doc:"only users or only products"`
		Limit int    `query:"limit" default:"20" minimum:"1" maximum:"100" doc:"results at most"`
		readside.Wanted
	}
	findOutput struct {
		readside.Lag
		Body struct {
			Results []Document `json:"results" nullable:"false" doc:"what fits best comes first"`
		}
	}
)

// handlers answer the API's requests.
type handlers struct {
	db    *pgxpool.Pool
	fresh *readside.Freshness
}

// register adds search's operations to an API.
func register(api huma.API, db *pgxpool.Pool, fresh *readside.Freshness) {
	h := handlers{db, fresh}
	huma.Register(api, huma.Operation{
		OperationID: "search", Method: http.MethodGet, Path: "/search", Summary: "Find users and products",
		Errors: []int{http.StatusGatewayTimeout, http.StatusServiceUnavailable},
	}, h.find)
}

func (h handlers) find(ctx context.Context, in *findInput) (*findOutput, error) {
	kinds := []Kind{User, Product}
	wait := map[string]readside.Reached{}
	for _, k := range kinds {
		wait[string(k)] = reached(h.db, k)
	}
	if err := in.Await(ctx, wait); err != nil {
		return nil, err
	}
	if in.Type != "" {
		kinds = []Kind{in.Type}
	}
	q, ok := parseQuery(in.Q)
	if !ok {
		return nil, web.Invalid(web.Field("query.q", "expected something to look for, not only blanks", in.Q))
	}
	since := h.fresh.Since(ctx)
	docs, err := find(ctx, h.db, q, kinds, in.Limit)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	out := &findOutput{Lag: readside.NewLag(since)}
	out.Body.Results = docs
	return out, nil
}
