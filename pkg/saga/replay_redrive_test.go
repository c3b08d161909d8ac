package saga_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// A replay reads a redriven message where it was first, and not again where it was put back, for whomever that was.
func TestReplayOfRedriven(t *testing.T) {
	t.Parallel()
	db := database(t)
	in := ask(t, "a", 1)
	in.Offset = 3
	var handled []string
	reads := saga.Service{Name: "reads", Routes: []saga.Route{saga.On(question, func(_ context.Context, _ pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		handled = append(handled, m.Key)
		return nil, nil
	})}}
	back := func(group string) broker.Record {
		svc := service(func(context.Context, pgx.Tx, saga.Msg[asked]) ([]saga.Out, error) {
			return nil, saga.Permanent(errors.New("bug"))
		})
		svc.Name = group
		r := dead(t, sagatest.Deliver(t, db, svc, in))[0].Redrive()
		r.Offset = 9
		return r
	}
	theirs, ours := back("svc"), back("reads")
	for _, records := range [][]broker.Record{{in, theirs}, {in, ours}, {in, theirs, ours}} {
		handled = nil
		if err := saga.Replay(t.Context(), db, reads, slog.New(slog.DiscardHandler), records, func(pgx.Tx, int, int) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(handled, []string{"a"}) {
			t.Errorf("%d records: handled %v, want the message once", len(records), handled)
		}
	}
	handled = nil
	if err := saga.Replay(t.Context(), db, reads, slog.New(slog.DiscardHandler), []broker.Record{theirs}, func(pgx.Tx, int, int) error { return nil }); err != nil || len(handled) != 0 {
		t.Errorf("%v, handled %v of what was put back for another", err, handled)
	}
}
