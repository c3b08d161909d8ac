package facts

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
)

// Retelling tells again what a database holds, for those who have heard something else: after a restore, what the lost changes said.
type Retelling struct {
	DB *pgxpool.Pool

	// Page publishes the events of up to limit things whose ids come after one, in the order of ids, as they are now. Their rows are locked, so that
	// an event that tells of a later change follows. It returns how many there were, and the last one's id.
	Page func(ctx context.Context, tx pgx.Tx, after string, limit int) (n int, last string, err error)

	Wake func() // the relay, after each page
}

// retellPage is how many things are told of in one transaction.
const retellPage = 500

type (
	retellInput struct {
		Body struct {
			After string `json:"after,omitempty" maxLength:"256" doc:"next of the answer before; none: from the first one on"`
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
			"is newer than what they have heard. Who has heard the same already changes nothing by it.",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.retell)
}

func (s Retelling) retell(ctx context.Context, in *retellInput) (*retellOutput, error) {
	out := &retellOutput{}
	err := pg.InTx(ctx, s.DB, func(tx pgx.Tx) error {
		n, last, err := s.Page(ctx, tx, in.Body.After, retellPage)
		out.Body.Told, out.Body.Next = n, ""
		if n == retellPage {
			out.Body.Next = last
		}
		return err
	})
	if err != nil {
		return nil, web.Fault(ctx, fmt.Errorf("tell again what is here: %w", err))
	}
	s.Wake()
	return out, nil
}
