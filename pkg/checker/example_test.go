package checker_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// Two services hold the same things: what shipping has scheduled must be of an order that is confirmed, and for the
// same amount.
func Example() {
	t, done := pgtest.Example()
	defer done()
	orders, shipping := tiny(t, "orders", "confirmed", "CONFIRMED", "CANCELLED"), tiny(t, "shipments", "scheduled", "SCHEDULED", "SCHEDULED")

	c, err := checker.New(checker.Config{
		Services: []checker.Service{
			{Name: "order", URL: orders.url, Set: "confirmed"},
			{Name: "shipping", URL: shipping.url, Set: "scheduled", Holds: "shipment"},
		},
		Rules: []checker.Rule{
			checker.Subset("scheduled-not-confirmed", "shipping", "order").RepairedBy(checker.Command{Service: "shipping", Path: "/shipments/{id}/stop"}),
			checker.SameAmount("scheduled-wrong-amount", "shipping", "order"),
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, request := range []checker.Request{{}, {Repair: true}, {}} {
		report, err := c.Check(context.Background(), request)
		if err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%d compared, %d findings\n", report.Checked, len(report.Findings))
		for _, f := range report.Findings {
			fmt.Println(f)
			fmt.Println(f.Repair.Action, f.Repair.State)
		}
	}
	// Output:
	// 2 compared, 1 findings
	// scheduled-not-confirmed at 01980d2e-0000-7000-8000-000000000002: it is in the set of shipping, and not in that of order: order CANCELLED (4200 EUR), shipment SCHEDULED (4200 EUR)
	// stop PLANNED
	// 2 compared, 1 findings
	// scheduled-not-confirmed at 01980d2e-0000-7000-8000-000000000002: it is in the set of shipping, and not in that of order: order CANCELLED (4200 EUR), shipment SCHEDULED (4200 EUR)
	// stop DONE
	// 2 compared, 0 findings
}

// holder is a service that shows what it holds, and stops shipments.
type holder struct {
	url    string
	db     *pgxpool.Pool
	source facts.Source
}

// tiny is a service that holds two things, in these statuses, of which the first one is that of its set's members.
func tiny(t testing.TB, table, set, first, second string) *holder {
	t.Helper()
	h := &holder{source: facts.Source{
		Set: set, Table: table, ID: "id", Member: "status = '" + first + "'", Amount: "amount",
		Facts: `SELECT id, status = '` + first + `', status, amount, 'EUR', changed_at, '', NULL::text, '' FROM ` + table,
	}}
	h.db = pgtest.New(t, "tiny "+table, func(ctx context.Context, db *pgxpool.Pool) error {
		if err := pg.Migrate(ctx, db, outbox.Migration()); err != nil {
			return err
		}
		_, err := db.Exec(ctx, `CREATE TABLE database_identity (id uuid NOT NULL DEFAULT gen_random_uuid(), epoch bigint NOT NULL DEFAULT 1);
			CREATE TABLE `+table+` (id uuid PRIMARY KEY, status text NOT NULL, amount bigint NOT NULL DEFAULT 4200, changed_at timestamptz NOT NULL DEFAULT '2026-01-31T12:00:00Z')`)
		return err
	})
	_, err := h.db.Exec(t.Context(), `INSERT INTO database_identity DEFAULT VALUES`)
	if err == nil {
		_, err = h.db.Exec(t.Context(), `INSERT INTO `+table+` VALUES ('01980d2e-0000-7000-8000-000000000001', $1), ('01980d2e-0000-7000-8000-000000000002', $2)`, first, second)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := web.New(web.Config{Service: table})
	facts.Server{DB: h.db, Service: saga.Service{Name: table}, Source: h.source}.Register(s.API)
	huma.Register(s.API, huma.Operation{OperationID: "stop", Method: http.MethodPost, Path: "/shipments/{id}/stop"}, h.stop)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

type stopInput struct {
	ID   uuid.UUID `path:"id"`
	Body struct {
		Seen string `json:"seen"`
	}
}

// stop changes what is as its sender has seen it, and nothing if it is stopped already.
func (h *holder) stop(ctx context.Context, in *stopInput) (*facts.Output, error) {
	_, err := h.db.Exec(ctx, `UPDATE shipments SET status = 'STOPPED', changed_at = now() WHERE id = $1 AND status = $2`, in.ID, in.Body.Seen)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	held, err := h.source.Get(ctx, h.db, in.ID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case len(held) == 0:
		return nil, web.NotFound("there is no shipment %s", in.ID)
	case held[0].Status != "STOPPED":
		return facts.Reply(held[0], in.Body.Seen, held[0].Status)
	}
	return facts.Reply(held[0], in.Body.Seen, "")
}
