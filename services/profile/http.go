package profile

import (
	"context"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/web"
)

type (
	// UserPath is exported because huma passes over what it embeds otherwise.
	UserPath struct {
		ID string `path:"id" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f/]*$" patternDescription:"text of 1 to 128 characters without slashes and control characters" example:"ada" doc:"the user's id"`
	}
	putInput struct {
		UserPath
		IfMatch     string `header:"If-Match" maxLength:"1000" example:"\"1\"" doc:"the ETag of the profile that is to be replaced; * means any"`
		IfNoneMatch string `header:"If-None-Match" maxLength:"1000" example:"*" doc:"* : only if the user has no profile yet; ETags: only if its ETag is none of these"`
		Body        Draft
	}
	output struct {
		Status int
		ETag   string `header:"ETag" doc:"the profile's version"`
		Body   Profile
	}
)

// handlers answer the API's requests.
type handlers struct {
	db    *pgxpool.Pool
	relay *outbox.Relay // nil: events wait in the outbox
}

// register adds profile's operations to an API.
func register(api huma.API, db *pgxpool.Pool, relay *outbox.Relay) {
	h := handlers{db, relay}
	huma.Register(api, huma.Operation{
		OperationID: "put-profile", Method: http.MethodPut, Path: "/users/{id}/profile", Summary: "Create a user's profile or change it",
		Description: "Sets everything in the profile. A change names in If-Match the version that it replaces, and fails with 412 when that is no longer " +
			"the version there is; without If-Match it fails with 428. A request that is sent again, because its answer was lost, changes nothing more.",
		Responses: map[string]*huma.Response{
			"200": {Description: "Changed"},
			"201": {Description: "Created", Content: map[string]*huma.MediaType{"application/json": {
				Schema: api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Profile](), true, ""),
			}}},
		},
		Errors: []int{http.StatusPreconditionFailed, http.StatusPreconditionRequired, http.StatusServiceUnavailable},
	}, h.put)
	huma.Register(api, huma.Operation{
		OperationID: "get-profile", Method: http.MethodGet, Path: "/users/{id}/profile", Summary: "Show a user's profile",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, h.get)
}

func (h handlers) put(ctx context.Context, in *putInput) (*output, error) {
	c, err := web.ParseCondition(in.IfMatch, in.IfNoneMatch)
	if err != nil {
		return nil, err
	}
	p, v, err := put(ctx, h.db, h.relay, in.ID, in.Body, c)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case v == blind:
		return nil, web.PreconditionRequired(fmt.Sprintf("the profile of %s exists: say with If-Match which version this replaces", in.ID))
	case v == conflict:
		detail := fmt.Sprintf("the profile of %s has version %d now", in.ID, p.Version)
		if p.Version == 0 {
			detail = fmt.Sprintf("%s has no profile yet", in.ID)
		}
		return nil, web.VersionConflict(detail)
	}
	out := &output{Status: http.StatusOK, ETag: p.etag(), Body: p}
	if p.Version == 1 {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (h handlers) get(ctx context.Context, in *UserPath) (*output, error) {
	p, ok, err := find(ctx, h.db, in.ID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, web.NotFound("%s has no profile", in.ID)
	}
	return &output{Status: http.StatusOK, ETag: p.etag(), Body: p}, nil
}
