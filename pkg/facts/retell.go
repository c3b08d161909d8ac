package facts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
)

// Retelling tells again what a database holds, for those who have heard something else: after a restore, what the lost
// changes said.
type Retelling struct {
	DB *pgxpool.Pool

	// Page publishes the events of up to limit things whose ids come after one, in the order of ids, as they are now.
	// Their rows are locked, so that an event that tells of a later change follows. It returns how many there were, and
	// the last one's id.
	Page func(ctx context.Context, tx pgx.Tx, after string, limit int) (n int, last string, err error)

	// Only does the same of the things with these ids. How many there were tells whether all are here.
	Only func(ctx context.Context, tx pgx.Tx, ids []string) (n int, err error)

	Wake func() // the relay, after each page
}

// TypeUntellable is the type of the problem that a thing is no event: 409. A person has to put its row right.
const TypeUntellable = "untellable"

// Untellable is what [Retelling.Page] and Only fail with where an event would not say what it must.
func Untellable(id string, err error) error {
	return web.Problem(http.StatusConflict, TypeUntellable, "Cannot be told", fmt.Sprintf("%s cannot be told: %s. Its row has to be put right", id, err))
}

// retellPage is how many things are told of in one transaction.
const retellPage = 500

type (
	retellInput struct {
		Body struct {
			After string `json:"after,omitempty" maxLength:"256" doc:"next of the answer before; none: from the first one on"`

			IDs []string `json:"ids,omitempty" minItems:"1" maxItems:"500" nullable:"false" doc:"only of these, in place of a page"`
		}
	}
	retellOutput struct {
		Body struct {
			Told int    `json:"told" doc:"of how many things"`
			Next string `json:"next,omitempty" doc:"where to go on; none after the last one"`
		}
	}
)

// Register adds the operation to an API.
func (s Retelling) Register(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "tell-again", Method: http.MethodPost, Path: "/told-again", Summary: "Publish what is here once more, a page at a time",
		Description: "For read sides that have heard something else, as after a restore: first POST /restored, so that what is told now " +
			"is newer than what they have heard. Who has heard the same already changes nothing by it. What cannot be an event is a 409 of the type untellable.",
		Errors: []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.retell)
}

func (s Retelling) retell(ctx context.Context, in *retellInput) (*retellOutput, error) {
	out := &retellOutput{}
	for i, id := range in.Body.IDs {
		if strings.ContainsRune(id, 0) { // which no id has, and no database takes
			return nil, web.Invalid(web.Field(fmt.Sprintf("body.ids[%d]", i), "expected an id", id))
		}
	}
	err := pg.InTx(ctx, s.DB, func(tx pgx.Tx) error {
		if len(in.Body.IDs) > 0 {
			n, err := s.Only(ctx, tx, in.Body.IDs)
			out.Body.Told, out.Body.Next = n, ""
			return err
		}
		n, last, err := s.Page(ctx, tx, in.Body.After, retellPage)
		out.Body.Told, out.Body.Next = n, ""
		if n == retellPage {
			out.Body.Next = last
		}
		return err
	})
	if no, ok := errors.AsType[huma.StatusError](err); ok {
		return nil, no
	}
	if err != nil {
		return nil, web.Fault(ctx, fmt.Errorf("tell again what is here: %w", err))
	}
	s.Wake()
	return out, nil
}
