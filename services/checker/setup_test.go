package checker

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

func TestMain(m *testing.M) { pgtest.Main(m) }

// schemaSQL is what matters of the three services' tables. They share a database here, which nobody can tell from
// outside.
const schemaSQL = `
CREATE TABLE orders (id uuid PRIMARY KEY, status text NOT NULL, amount bigint NOT NULL, currency text NOT NULL, changed_at timestamptz NOT NULL,
    user_id text NOT NULL DEFAULT 'u-1', items jsonb NOT NULL DEFAULT '[{"productId":"p-2","quantity":1},{"productId":"p-1","quantity":3}]');
CREATE TABLE reservations (order_id uuid PRIMARY KEY, status text NOT NULL, changed_at timestamptz NOT NULL,
    items jsonb NOT NULL DEFAULT '[{"productId":"p-1","quantity":3},{"productId":"p-2","quantity":1}]');
CREATE TABLE payments (order_id uuid PRIMARY KEY, status text NOT NULL, amount bigint NOT NULL, currency text NOT NULL, changed_at timestamptz NOT NULL,
    user_id text NOT NULL DEFAULT 'u-1');`

var sources = three[facts.Source]{
	{
		Set: "confirmed", Table: "orders", ID: "id", Member: "status = 'CONFIRMED'", Open: "status IN ('PENDING', 'CANCELLING')", Amount: "amount",
		Currency: "currency", User: "user_id", Items: "items",
		Facts: `SELECT id, status = 'CONFIRMED', status, amount, currency, changed_at, '', user_id, ` + facts.ItemsSQL("items") + ` FROM orders`,
	},
	{
		Set: "reserved", Table: "reservations", ID: "order_id", Member: "status = 'RESERVED'", Items: "items",
		Facts: `SELECT order_id, status = 'RESERVED', status, 0::bigint, '', changed_at, '', NULL::text, ` + facts.ItemsSQL("items") + ` FROM reservations`, Key: "order_id",
	},
	{
		Set: "paid", Table: "payments", ID: "order_id", Member: "status IN ('COMPLETED', 'REFUNDING')", Amount: "amount", Currency: "currency", User: "user_id",
		Facts: `SELECT order_id, status IN ('COMPLETED', 'REFUNDING'), status, amount, currency, changed_at, '', user_id, '' FROM payments`, Key: "order_id",
	},
}

// bundle is three services at noon, and a checker that asks them.
type bundle struct {
	*testing.T
	db  *pgxpool.Pool
	cfg Config

	asked atomic.Int64 // requests

	mu    sync.Mutex
	flows []func(service int) (facts.Flow, error) // what services answer to the first questions for flow, by round
	round three[int]
	rules three[[]facts.Breach]
	blind three[bool]            // whose audits fail
	known three[*facts.Identity] // which databases the services say they have; nil: they do not say
	extra http.Handler           // what is no question for facts; nil: 404
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{T: t, db: pgtest.New(t, "checker", func(ctx context.Context, db *pgxpool.Pool) error {
		if err := pg.Migrate(ctx, db, outbox.Migration()); err != nil {
			return err
		}
		_, err := db.Exec(ctx, schemaSQL)
		return err
	})}
	b.cfg.Now = func() time.Time { return noon }
	for i, url := range []*string{&b.cfg.OrderURL, &b.cfg.InventoryURL, &b.cfg.PaymentURL} {
		s := web.New(web.Config{Service: sources[i].Table})
		facts.Server{DB: b.db, Service: saga.Service{Name: sources[i].Table}, Source: sources[i]}.Register(s.API) // of no consumer groups: flow asks no broker
		server := httptest.NewServer(b.serve(i, s))
		t.Cleanup(server.Close)
		*url = server.URL
	}
	return b
}

// newChecker is a checker of what is declared.
func newChecker(cfg Config) *checker.Checker {
	c, err := checker.New(cfg.declare())
	if err != nil {
		panic(err)
	}
	return c
}

// serve is a service whose flow and audit the test decides.
func (b *bundle) serve(service int, genuine http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		switch r.URL.Path {
		case "/facts/digest", "/facts", "/facts/query":
			genuine.ServeHTTP(w, r)
		case "/facts/flow":
			if fn := b.nextFlow(service); fn == nil {
				genuine.ServeHTTP(w, r)
			} else if f, err := fn(service); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			} else {
				answer(w, f)
			}
		case "/facts/identity":
			if is := b.known[service]; is != nil {
				answer(w, is)
			} else {
				http.NotFound(w, r)
			}
		case "/facts/audit":
			if b.blind[service] {
				http.Error(w, "", http.StatusServiceUnavailable)
				return
			}
			answer(w, facts.Breaches{Breaches: append([]facts.Breach{}, b.rules[service]...)})
		default:
			if b.extra == nil {
				http.NotFound(w, r)
				return
			}
			b.extra.ServeHTTP(w, r)
		}
	}
}

func (b *bundle) nextFlow(service int) func(int) (facts.Flow, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.round[service]
	b.round[service]++
	if n < len(b.flows) {
		return b.flows[n]
	}
	return nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (b *bundle) check(r checker.Request) checker.Report {
	b.Helper()
	report, err := newChecker(b.cfg).Check(b.Context(), r)
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

// put has the services hold of an order what the statuses say, of an hour ago; empty is nothing.
func (b *bundle) put(id uuid.UUID, order, reservation, payment string) {
	b.Helper()
	b.exec(`DELETE FROM orders WHERE id = $1`, id)
	b.exec(`DELETE FROM reservations WHERE order_id = $1`, id)
	b.exec(`DELETE FROM payments WHERE order_id = $1`, id)
	at := noon.Add(-time.Hour)
	b.exec(`INSERT INTO orders SELECT $1, $2, 4200, 'EUR', $3 WHERE $2 <> ''`, id, order, at)
	b.exec(`INSERT INTO reservations SELECT $1, $2, $3 WHERE $2 <> ''`, id, reservation, at)
	b.exec(`INSERT INTO payments SELECT $1, $2, 4200, 'EUR', $3 WHERE $2 <> ''`, id, payment, at)
}

// fill has the services hold orders that are in all three sets.
func (b *bundle) fill(ids ...uuid.UUID) {
	b.Helper()
	at := noon.Add(-time.Hour)
	b.exec(`INSERT INTO orders SELECT unnest($1::uuid[]), 'CONFIRMED', 100, 'EUR', $2`, ids, at)
	b.exec(`INSERT INTO reservations SELECT unnest($1::uuid[]), 'RESERVED', $2`, ids, at)
	b.exec(`INSERT INTO payments SELECT unnest($1::uuid[]), 'COMPLETED', 100, 'EUR', $2`, ids, at)
}

// idsOf makes n ids, so long apart, up to two hours before noon.
func idsOf(n int, apart time.Duration) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = idAt(noon.Add(-2*time.Hour-time.Duration(i)*apart), i)
	}
	return ids
}

// kindsOf are the findings by order.
func kindsOf(r checker.Report) map[uuid.UUID][]checker.Kind {
	found := map[uuid.UUID][]checker.Kind{}
	for _, f := range r.Findings {
		found[f.OrderID] = append(found[f.OrderID], f.Kind)
	}
	return found
}

func hourAgo(n int) uuid.UUID { return idAt(noon.Add(-time.Hour), n) }
