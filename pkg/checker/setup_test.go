package checker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// schemaSQL is of two services that share a database here, which nobody can tell from outside.
const schemaSQL = `
CREATE TABLE orders (id uuid PRIMARY KEY, status text NOT NULL, amount bigint NOT NULL DEFAULT 100, currency text NOT NULL DEFAULT 'EUR',
    changed_at timestamptz NOT NULL, user_id text NOT NULL DEFAULT 'u-1', items jsonb NOT NULL DEFAULT '[{"productId":"p-1","quantity":3}]');
CREATE TABLE shipments (LIKE orders INCLUDING ALL);`

// The services, by their places.
const (
	order = iota
	shipping
)

// What is found of them.
const (
	shippedNotConfirmed Kind = "shipped-not-confirmed"
	shippedWrongAmount  Kind = "shipped-wrong-amount"
	shippedWrongUser    Kind = "shipped-wrong-user"
	shippedWrongItems   Kind = "shipped-wrong-items"
	orderStuck          Kind = "order-stuck"
	parcelMismatch      Kind = "parcel-mismatch"
)

func sourceOf(table, set, member, open string) facts.Source {
	return facts.Source{
		Set: set, Table: table, ID: "id", Member: "status = '" + member + "'", Open: "status = '" + open + "'",
		Amount: "amount", Currency: "currency", User: "user_id", Items: "items",
		Facts: `SELECT id, status = '` + member + `', status, amount, currency, changed_at, '', user_id, ` + facts.ItemsSQL("items") + ` FROM ` + table,
	}
}

var sources = [2]facts.Source{sourceOf("orders", "confirmed", "CONFIRMED", "PENDING"), sourceOf("shipments", "shipped", "SHIPPED", "PACKED")}

// bundle is two services at noon, and what a checker of them is declared with: what is shipped is of a confirmed order,
// to whom has ordered it.
type bundle struct {
	*testing.T
	db  *pgxpool.Pool
	cfg Config

	rules    [2][]facts.Breach  // what the audits find
	blind    [2]bool            // whose audits fail
	known    [2]*facts.Identity // which databases the services say they have; nil: they do not say
	away     atomic.Int64       // so many questions for flow are not answered
	commands atomic.Int64       // that were given
	refuse   error              // what a command answers; nil: it is carried out
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{T: t, db: pgtest.New(t, "checked", func(ctx context.Context, db *pgxpool.Pool) error {
		if err := pg.Migrate(ctx, db, outbox.Migration()); err != nil {
			return err
		}
		_, err := db.Exec(ctx, schemaSQL)
		return err
	})}
	b.cfg = Config{
		Services: []Service{
			{Name: "order", Set: "confirmed"},
			{Name: "shipping", Set: "shipped", Holds: "shipment", Audits: []Audited{{Kind: parcelMismatch, Recount: "/parcels/{subject}/recount"}}},
		},
		Rules: []Rule{
			Subset(shippedNotConfirmed, "shipping", "order").RepairedBy(Command{Service: "shipping", Path: "/shipments/{id}/stop"}),
			SameAmount(shippedWrongAmount, "shipping", "order"),
			SameUser(shippedWrongUser, "shipping", "order"),
			SameItems(shippedWrongItems, "shipping", "order"),
			Settles(orderStuck, "order", 20*time.Minute, "PENDING"),
		},
		Now: func() time.Time { return noon },
	}
	for i, source := range sources {
		s := web.New(web.Config{Service: source.Table})
		facts.Server{DB: b.db, Service: saga.Service{Name: source.Table}, Source: source}.Register(s.API) // of no consumer groups: flow asks no broker
		server := httptest.NewServer(b.serve(i, s))
		t.Cleanup(server.Close)
		b.cfg.Services[i].URL = server.URL
	}
	return b
}

// serve is a service whose identity, audit and flow the test decides, and which carries out commands.
func (b *bundle) serve(service int, genuine http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch path := strings.Split(r.URL.Path, "/"); {
		case r.URL.Path == "/facts/identity" && b.known[service] == nil:
			http.NotFound(w, r)
		case r.URL.Path == "/facts/identity":
			answer(w, b.known[service])
		case r.URL.Path == "/facts/audit" && b.blind[service], r.URL.Path == "/facts/flow" && b.away.Add(-1) >= 0:
			http.Error(w, "", http.StatusServiceUnavailable)
		case r.URL.Path == "/facts/audit":
			answer(w, facts.Breaches{Breaches: append([]facts.Breach{}, b.rules[service]...)})
		case path[1] == "facts":
			genuine.ServeHTTP(w, r)
		case b.refuse != nil:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(b.refuse)
		case path[1] == "parcels":
			b.commands.Add(1)
			answer(w, map[string]string{"counted": r.URL.EscapedPath()})
		default:
			b.commands.Add(1)
			var seen struct{ Seen string }
			id := uuid.MustParse(path[2])
			if err := errors.Join(json.NewDecoder(r.Body).Decode(&seen), b.stop(r.Context(), id, seen.Seen)); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			answer(w, facts.Fact{ID: id, Status: "STOPPED", ChangedAt: noon})
		}
	}
}

func (b *bundle) stop(ctx context.Context, id uuid.UUID, seen string) error {
	tag, err := b.db.Exec(ctx, `UPDATE shipments SET status = 'STOPPED' WHERE id = $1 AND status = $2`, id, seen)
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("nothing was stopped")
	}
	return err
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (b *bundle) checker() *Checker {
	b.Helper()
	c, err := New(b.cfg)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func (b *bundle) check(r Request) Report {
	b.Helper()
	report, err := b.checker().Check(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	return report
}

func (b *bundle) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.db.Exec(b.Context(), sql, args...); err != nil {
		b.Fatal(err)
	}
}

// fill has the services hold orders that are confirmed and shipped since an hour.
func (b *bundle) fill(ids ...uuid.UUID) {
	b.Helper()
	b.exec(`INSERT INTO orders (id, status, changed_at) SELECT unnest($1::uuid[]), 'CONFIRMED', $2`, ids, noon.Add(-time.Hour))
	b.exec(`INSERT INTO shipments (id, status, changed_at) SELECT unnest($1::uuid[]), 'SHIPPED', $2`, ids, noon.Add(-time.Hour))
}

// idAt is the n-th id of a millisecond.
func idAt(at time.Time, n int) uuid.UUID {
	id := facts.FirstOf(at)
	copy(id[6:], fmt.Sprintf("\x70\x00\x80\x00%06d", n))
	return id
}

func hourAgo(n int) uuid.UUID { return idAt(noon.Add(-time.Hour), n) }

// hoursAgo are the first n ids of an hour ago.
func hoursAgo(n int) (ids []uuid.UUID) {
	for i := range n {
		ids = append(ids, hourAgo(i))
	}
	return ids
}

// kindsOf are the findings by order.
func kindsOf(r Report) map[uuid.UUID][]Kind {
	found := map[uuid.UUID][]Kind{}
	for _, f := range r.Findings {
		found[f.OrderID] = append(found[f.OrderID], f.Kind)
	}
	for _, kinds := range found {
		slices.Sort(kinds)
	}
	return found
}
