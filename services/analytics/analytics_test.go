package analytics

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is the service on a database of its own, without Kafka.
type bundle struct {
	*testing.T
	db  *pgxpool.Pool
	api http.Handler
}

func setup(t *testing.T) bundle {
	t.Helper()
	db := pgtest.New(t, "analytics", sagatest.Migrate(readside.Migration(), pg.Migration{Name: "analytics", FS: migrations.For("analytics")}))
	nowhere, err := broker.Open(broker.Config{Brokers: []string{pgtest.FreeAddr(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nowhere.Close)
	server := web.New(web.Config{Service: "analytics"})
	register(server.API, db, readside.NewFreshness(Side(), nowhere))
	return bundle{t, db, server}
}

func (b bundle) deliver(records ...broker.Record) {
	b.Helper()
	for _, r := range sagatest.Deliver(b.T, b.db, Choreography(), records...) {
		b.Errorf("it says %s: %s", r.Topic, r.Header("dlq-reason"))
	}
}

// noon is when the orders of the tests begin.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// at is a message about something at so many milliseconds after noon.
func at[T any](t *testing.T, ms int, topic saga.Topic[T], key string, data T) broker.Record {
	t.Helper()
	r := sagatest.Record(t, saga.New(t.Context(), topic, key, data))
	for i := range r.Headers {
		if r.Headers[i].Key == "ce_time" {
			r.Headers[i].Value = []byte(noon.Add(time.Duration(ms) * time.Millisecond).Format(time.RFC3339Nano))
		}
	}
	return r
}

func order(n int) uuid.UUID { return uuid.MustParse(fmt.Sprintf("01980d2e-0000-7000-8000-%012d", n)) }

// story is all that is told of some orders: 1 and 2 confirmed, 3 out of stock, 4 declined, 5 pending, 6 in the next
// hour and confirmed, and cancelled later.
func story(t *testing.T) []broker.Record {
	t.Helper()
	var rs []broker.Record
	created := func(n, ms int, amount int64, currency string) {
		rs = append(rs, at(t, ms, event.OrderCreated, order(n).String(), event.OrderCreatedV1{
			OrderID: order(n), UserID: "ada", Amount: amount, Currency: currency, Items: []event.Item{{ProductID: "tea", Quantity: 1}},
		}))
	}
	paid := func(n, ms int, amount int64) {
		rs = append(rs, at(t, ms, event.PaymentCompleted, order(n).String(), event.PaymentCompletedV1{OrderID: order(n), PaymentID: uuid.New(), Amount: amount}),
			at(t, ms+10, event.OrderConfirmed, order(n).String(), event.OrderConfirmedV1{OrderID: order(n)}))
	}
	cancelled := func(n, ms int) {
		rs = append(rs, at(t, ms, event.OrderCancelled, order(n).String(), event.OrderCancelledV1{OrderID: order(n), Reason: "so"}))
	}
	created(1, 0, 1000, "EUR")
	paid(1, 90, 1000)
	created(2, 1000, 500, "JPY")
	paid(2, 1290, 500)
	created(3, 2000, 700, "EUR")
	rs = append(rs, at(t, 2020, event.InventoryReservationFailed, order(3).String(), event.InventoryReservationFailedV1{OrderID: order(3), Error: "out of stock: cup: 2 wanted, 1 available"}))
	cancelled(3, 2040)
	created(4, 3000, 800, "EUR")
	rs = append(rs, at(t, 3020, event.PaymentFailed, order(4).String(), event.PaymentFailedV1{OrderID: order(4), Error: "user ada is declined"}))
	cancelled(4, 3060)
	created(5, 4000, 900, "EUR")
	created(6, 3_600_000, 100, "EUR")
	paid(6, 3_600_100, 100)
	cancelled(6, 3_601_000)
	for v := range 3 {
		rs = append(rs, at(t, 100*v, event.UserProfileUpdated, "ada", event.UserProfileUpdatedV1{UserID: "ada", Version: int64(v + 1), Name: "Ada"}))
	}
	return append(rs, at(t, 3_700_000, event.UserProfileUpdated, "bob", event.UserProfileUpdatedV1{UserID: "bob", Version: 1, Name: "Bob"}))
}

// report returns the rows of a report on the day of the story.
func (b bundle) report(name string) []any {
	b.Helper()
	window := url.Values{"from": {"2026-11-23T00:00:00Z"}, "to": {"2026-11-24T00:00:00Z"}}
	status, body := b.get("/analytics/" + name + "?" + window.Encode())
	if status != http.StatusOK {
		b.Fatalf("%s: %d %v", name, status, body)
	}
	return body["rows"].([]any)
}

func (b bundle) get(path string) (int, map[string]any) {
	b.Helper()
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), "GET", path, nil))
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		b.Fatalf("%s: %d %q: %v", path, w.Code, w.Body, err)
	}
	return w.Code, body
}

type row = map[string]any

const hour12, hour13 = "2026-11-23T12:00:00Z", "2026-11-23T13:00:00Z"

func reports() map[string][]any {
	return map[string][]any{
		"orders":   {row{"hour": hour12, "pending": 1.0, "confirmed": 2.0, "cancelled": 2.0}, row{"hour": hour13, "pending": 0.0, "confirmed": 0.0, "cancelled": 1.0}},
		"revenue":  {row{"hour": hour12, "currency": "EUR", "orders": 1.0, "amount": 1000.0}, row{"hour": hour12, "currency": "JPY", "orders": 1.0, "amount": 500.0}},
		"refusals": {row{"by": "inventory", "code": "out-of-stock", "reason": "out of stock: cup", "orders": 1.0}, row{"by": "payment", "code": "declined", "reason": "user is declined", "orders": 1.0}},
		"durations": {
			row{"state": "CONFIRMED", "orders": 3.0, "p50Ms": 110.0, "p90Ms": 262.0, "p99Ms": 296.2, "maxMs": 300.0},
			row{"state": "CANCELLED", "orders": 2.0, "p50Ms": 50.0, "p90Ms": 58.0, "p99Ms": 59.8, "maxMs": 60.0},
		},
		"cancellations":   {row{"orders": 1.0, "p50Ms": 890.0, "p90Ms": 890.0, "p99Ms": 890.0, "maxMs": 890.0}},
		"profile-updates": {row{"hour": hour12, "updates": 3.0, "users": 1.0}, row{"hour": hour13, "updates": 1.0, "users": 1.0}},
	}
}

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t).db)
}

// Reports come out the same however the messages come: in order, or late, twice, said once more later, and in polls of
// any size.
func TestReportsWhateverTheOrder(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"in order", "shuffled", "shuffled", "shuffled"} {
		seed := uint64(time.Now().UnixNano())
		t.Run(fmt.Sprintf("%s, seed %d", way, seed), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			rnd := rand.New(rand.NewPCG(seed, 0))
			records := story(t)
			if way == "shuffled" {
				records = append(records, records[:8]...)
				records = append(records, // a service that gives its stored outcome again says it under a new id and with a later time
					at(t, 9000, event.OrderConfirmed, order(1).String(), event.OrderConfirmedV1{OrderID: order(1)}),
					at(t, 9000, event.UserProfileUpdated, "ada", event.UserProfileUpdatedV1{UserID: "ada", Version: 2, Name: "Ada"}),
					at(t, 9000, event.OrderCancelled, order(4).String(), event.OrderCancelledV1{OrderID: order(4), Reason: "so"}))
				rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
			}
			for poll := range slices.Chunk(records, 1+rnd.IntN(10)) {
				b.deliver(poll...)
			}
			for name, want := range reports() {
				if diff := cmp.Diff(want, b.report(name), cmp.Comparer(func(a, b float64) bool { return a-b < 1e-6 && b-a < 1e-6 })); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}

// What an order's other events tell is kept until its order.created comes.
func TestOrderOfWhichTheBeginningIsMissing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rs := story(t)
	b.deliver(rs[1:3]...)
	if got := b.report("orders"); len(got) != 0 {
		t.Errorf("before it comes: %v", got)
	}
	b.deliver(rs[0])
	if diff := cmp.Diff([]any{row{"hour": hour12, "pending": 0.0, "confirmed": 1.0, "cancelled": 0.0}}, b.report("orders")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWindows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for query, want := range map[string]int{
		"": 200, "?from=2026-11-23T00:00:00Z&to=2026-11-23T00:00:00Z": 422, "?from=2026-01-01T00:00:00Z&to=2026-11-23T00:00:00Z": 422,
		"?from=yesterday": 422, "?minVersion=user:ada:1&waitMs=10": 504, "?minVersion=product:tea:1": 422,
	} {
		if got, body := b.get("/analytics/orders" + query); got != want {
			t.Errorf("%q: %d %v; want %d", query, got, body, want)
		}
	}
	b.deliver(story(t)...)
	if got, body := b.get("/analytics/orders?minVersion=user:ada:3"); got != 200 {
		t.Errorf("what has come: %d %v", got, body)
	}
}

func TestKindsOfRefusals(t *testing.T) {
	for reason, want := range map[string]string{
		"out of stock: grinder: 5 wanted, 3 available":     "out of stock: grinder",
		"unknown product: sku-9":                           "unknown product",
		"user declined-user is declined":                   "user is declined",
		"amount 2000000 is above the limit of 1000000":     "amount N is above the limit of N",
		"released before it was reserved":                  "released before it was reserved",
		"user x is declined\nand something is is declined": "user is declined",
	} {
		if got := kindOf(reason); got != want {
			t.Errorf("%q is %q, want %q", reason, got, want)
		}
	}
}

// whole is an order from its beginning on: what happens to it comes after, in milliseconds.
func whole(t *testing.T, n int, amount int64) broker.Record {
	t.Helper()
	return at(t, 0, event.OrderCreated, order(n).String(), event.OrderCreatedV1{
		OrderID: order(n), UserID: "ada", Amount: amount, Currency: "EUR", Items: []event.Item{{ProductID: "tea", Quantity: 1}},
	})
}

// An order that is cancelled while it is on its way is told of as a failure by payment and by inventory. It is none of
// theirs.
func TestCancelledIsNotRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	said := "out of stock: my patience: call 555-0100"
	b.deliver(
		whole(t, 1, 1), at(t, 9, event.OrderCancelled, order(1).String(), event.OrderCancelledV1{OrderID: order(1), Reason: said}),
		at(t, 10, event.PaymentFailed, order(1).String(), event.PaymentFailedV1{OrderID: order(1), Error: "the order was cancelled: " + said}),
		at(t, 11, event.InventoryReservationFailed, order(1).String(), event.InventoryReservationFailedV1{OrderID: order(1), Error: "released before it was reserved"}),
		whole(t, 2, 1), at(t, 9, event.InventoryReservationFailed, order(2).String(), event.InventoryReservationFailedV1{OrderID: order(2), Error: "released before it was reserved"}),
		at(t, 10, event.PaymentFailed, order(2).String(), event.PaymentFailedV1{OrderID: order(2), Error: "insufficient balance: 12 wanted, 3 available"}),
	)
	b.deliver(at(t, 10, event.PaymentFailed, order(3).String(), event.PaymentFailedV1{OrderID: order(3), Error: "the order was cancelled: " + said}))
	want := []any{row{"by": "payment", "code": "insufficient-balance", "reason": "insufficient balance: N wanted, N available", "orders": 1.0}}
	if diff := cmp.Diff(want, b.report("refusals")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{row{"hour": hour12, "pending": 1.0, "confirmed": 0.0, "cancelled": 1.0}}, b.report("orders")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// However many reasons there are, and whatever is in them, a few are counted.
func TestReasonsAreFew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var records []broker.Record
	n := 0
	for i := range 30 {
		for _, reason := range []string{
			fmt.Sprintf("account user-%d is frozen", i), fmt.Sprintf("account user %c is in EUR, not in USD", 'a'+i), fmt.Sprintf("account merchant.%d is not a user's", i),
			fmt.Sprintf("user %c\n%c is declined", 'a'+i, 'b'+i), fmt.Sprintf("amount %d is above the limit of 7", i), fmt.Sprintf("insufficient balance: %d wanted, 0 available", i),
			fmt.Sprintf("unknown product: %c: \u0001", 'a'+i), fmt.Sprintf("ring me at home, %c", 'A'+i), fmt.Sprintf("out of stock: %c %c: 2 wanted, 1 available", 'a'+i, 'a'+i),
		} {
			n++
			records = append(records, whole(t, n, 1), at(t, 5, event.PaymentFailed, order(n).String(), event.PaymentFailedV1{OrderID: order(n), Error: reason}))
		}
	}
	b.deliver(records...)
	got := map[string]any{}
	for _, r := range b.report("refusals") {
		got[r.(row)["reason"].(string)] = r.(row)["orders"]
	}
	want := map[string]any{
		"account is frozen": 30.0, "account is in another currency": 30.0, "account is not a user's": 30.0, "user is declined": 30.0, "amount N is above the limit of N": 30.0,
		"insufficient balance: N wanted, N available": 30.0, "unknown product": 30.0, "other": 30.0, "out of stock": 30.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for kind := range want {
		if again := kindOf(kind); again != kind {
			t.Errorf("the kind %q is of the kind %q", kind, again)
		}
	}
}

// Rows that were written before reasons were few are counted like those that are written now.
func TestRefusalsOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.db.Exec(t.Context(), `INSERT INTO orders (generation, order_id, created_at, refused_at, refused_by, refusal)
SELECT 1, gen_random_uuid(), $1, $1, 'payment', r FROM unnest($2::text[]) AS r`, noon, []string{
		"the order was cancelled: ring me at home", "account ada is frozen", "account bob is frozen", "released before it was reserved", "insufficient balance: N wanted, N available",
	}); err != nil {
		t.Fatal(err)
	}
	want := []any{row{"by": "payment", "code": "account-frozen", "reason": "account is frozen", "orders": 2.0}, row{"by": "payment", "code": "insufficient-balance", "reason": "insufficient balance: N wanted, N available", "orders": 1.0}}
	if diff := cmp.Diff(want, b.report("refusals")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A sum that is larger than its parts can be is a number like any other.
func TestRevenueBeyond64Bits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for n := range 3 {
		b.deliver(whole(t, n, math.MaxInt64), at(t, 5, event.OrderConfirmed, order(n).String(), event.OrderConfirmedV1{OrderID: order(n)}))
	}
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/analytics/revenue?from=2026-11-23T00:00:00Z&to=2026-11-24T00:00:00Z", nil))
	if want := `{"hour":"2026-11-23T12:00:00Z","currency":"EUR","orders":3,"amount":27670116110564327421}`; w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
		t.Errorf("%d %s; want %s", w.Code, w.Body, want)
	}
}
