package checker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

// Whatever is wrong with an order, and whatever is refused on the way: when it is repaired and what was told then is
// heard, the services agree. Only a refund that cannot be made keeps them waiting.
func TestRepairsConverge(t *testing.T) {
	t.Parallel()
	everyCase(func(order, reservation, payment string) {
		for i := range 16 {
			w := &world{id: idAt(noon, 1), held: holding(order, reservation, payment, ages["overdue"], ages["overdue"], ages["overdue"])}
			w.soldOut, w.broke, w.owing = i&1 > 0, i&2 > 0, i&4 > 0
			w.unheard = i&8 > 0
			r := w.start(t)
			name := fmt.Sprintf("%s; sold out %v, broke %v, owing %v", w.held, w.soldOut, w.broke, w.owing)
			for round := 0; ; round++ {
				flaws, _ := judge(w.held, terms{now: noon.AddDate(1, 0, 0)})
				if len(flaws) == 0 {
					break
				}
				p := planFor(w.held, flaws)
				if p.advice != "" {
					w.held.Order = nil // an operator found out that nobody has ordered it
				} else if w.owing && w.held.refunding() && !p.todo() {
					w.owing = false // an operator gave the merchant what it needs
				} else if round == 3 {
					t.Errorf("%s: is %s after %d repairs: %v\n%s", name, w.held, round, flaws, strings.Join(w.calls, "\n"))
					break
				}
				if p.todo() {
					repair, answered := r.order(t.Context(), w.id, w.held, p)
					if repair.State != checker.Done && repair.State != checker.Refused || !answered {
						t.Errorf("%s: %s: %s: %s", name, p, repair.State, repair.Detail)
						break
					}
					if !repair.After.Same(w.held.all()) {
						t.Errorf("%s: %s: after it %s is held, and %s is said to be", name, p, w.held, repair.After)
					}
				}
				w.deliver()
			}
			if w.held.differs() {
				t.Errorf("%s: ends as %s", name, w.held)
			}
		}
	})
}

// What is sent, to whom and in which order.
func TestRepairsCalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                        string
		order, reservation, payment string
		world                       *world
		want                        []string
		state                       checker.State
		detail                      string
		after                       string
	}{
		{
			"made good", "CONFIRMED", "", "FAILED", &world{}, []string{
				`GET /orders/ID`,
				`POST /reservations/ID/reserve {"items":[{"productId":"p-1","quantity":2}],"seen":"NONE"}`,
				`GET /orders/ID`,
				`POST /payments/ID/charge {"amount":4200,"currency":"EUR","seen":"FAILED","userId":"u-1"}`,
			}, checker.Done, "", "order CONFIRMED (4200 EUR), reservation RESERVED (4200 EUR), payment COMPLETED (4200 EUR)",
		},
		{
			"cannot be reserved", "CONFIRMED", "RELEASED", "COMPLETED", &world{soldOut: true}, []string{
				`GET /orders/ID`,
				`POST /reservations/ID/reserve {"items":[{"productId":"p-1","quantity":2}],"seen":"RELEASED"}`,
				`POST /orders/ID/reconcile {"by":"test","paid":true,"reason":"out of stock: p-1: 2 wanted, 0 available","reserved":false,"seen":"CONFIRMED"}`,
			}, checker.Refused, "out of stock: p-1: 2 wanted, 0 available; so it was cancelled instead, and is CANCELLING",
			"order CANCELLING (4200 EUR), reservation RELEASED, payment COMPLETED (4200 EUR)",
		},
		{
			"cannot be paid", "CONFIRMED", "REFUSED", "", &world{broke: true}, []string{
				`GET /orders/ID`,
				`POST /reservations/ID/reserve {"items":[{"productId":"p-1","quantity":2}],"seen":"REFUSED"}`,
				`GET /orders/ID`,
				`POST /payments/ID/charge {"amount":4200,"currency":"EUR","seen":"NONE","userId":"u-1"}`,
				`POST /orders/ID/reconcile {"by":"test","paid":false,"reason":"u-1 has 1 EUR of 4200","reserved":true,"seen":"CONFIRMED"}`,
			}, checker.Refused, "u-1 has 1 EUR of 4200; so it was cancelled instead, and is CANCELLED",
			"order CANCELLED (4200 EUR), reservation RESERVED (4200 EUR), no payment",
		},
		{
			"cannot be said", "CONFIRMED", "RESERVED", "FAILED", &world{unclear: true}, []string{
				`GET /orders/ID`,
				`POST /payments/ID/charge {"amount":4200,"currency":"EUR","seen":"FAILED","userId":"u-1"}`,
			}, checker.Refused, "only a person can say what is right. Does the order stay? Yes: POST /payments/" + idAt(noon, 1).String() +
				`/decide of payment, with {"seen":"FAILED","paid":true,"userId":"u-1","amount":4200,"currency":"EUR"}. No: POST /orders/` + idAt(noon, 1).String() +
				`/reconcile of order, with {"seen":"CONFIRMED","reserved":true,"paid":false,"reason":"why","by":"who"}, and what the ledger holds of it is then found, and decided with "paid":false`,
			"order CONFIRMED (4200 EUR), reservation RESERVED, payment FAILED (4200 EUR)",
		},
		{
			"confirmed late", "PENDING", "RESERVED", "COMPLETED", &world{}, []string{
				`POST /orders/ID/reconcile {"by":"test","paid":true,"reason":"it is paid","reserved":true,"seen":"PENDING"}`,
			}, checker.Done, "", "order CONFIRMED (4200 EUR), reservation RESERVED, payment COMPLETED (4200 EUR)",
		},
		{
			"confirmed when it hears", "PENDING", "RESERVED", "COMPLETED", &world{unheard: true}, []string{
				`POST /orders/ID/reconcile {"by":"test","paid":true,"reason":"it is paid","reserved":true,"seen":"PENDING"}`,
				`GET /orders/ID`,
				`POST /payments/ID/charge {"amount":4200,"currency":"EUR","seen":"COMPLETED","tell":true,"userId":"u-1"}`,
			}, checker.Done, "payment tells the order again that it is paid, which confirms it", "order PENDING (4200 EUR), reservation RESERVED, payment COMPLETED (4200 EUR)",
		},
		{
			"expired", "PENDING", "RESERVED", "", &world{}, []string{
				`POST /orders/ID/reconcile {"by":"test","paid":false,"reason":"expired","reserved":true,"seen":"PENDING"}`,
			}, checker.Done, "", "order CANCELLED (4200 EUR), reservation RESERVED, no payment",
		},
		{
			"being paid back", "PENDING", "RESERVED", "REFUNDING", &world{}, []string{
				`POST /orders/ID/reconcile {"by":"test","paid":false,"reason":"the payment is being paid back","reserved":true,"seen":"PENDING"}`,
			}, checker.Done, "the refund waits: ", "order CANCELLED (4200 EUR), reservation RESERVED, payment REFUNDING (4200 EUR)",
		},
		{
			"stuck", "CANCELLING", "RESERVED", "COMPLETED", &world{}, []string{
				`POST /payments/ID/refund {"seen":"COMPLETED"}`,
				`POST /reservations/ID/release {"seen":"RESERVED"}`,
				`POST /orders/ID/reconcile {"by":"test","paid":false,"reason":"its cancellation was not completed","reserved":false,"seen":"CANCELLING"}`,
			}, checker.Done, "", "order CANCELLED (4200 EUR), reservation RELEASED (4200 EUR), payment REFUNDED (4200 EUR)",
		},
		{
			"stuck for want of money", "CANCELLING", "RESERVED", "COMPLETED", &world{owing: true}, []string{
				`POST /payments/ID/refund {"seen":"COMPLETED"}`,
				`POST /reservations/ID/release {"seen":"RESERVED"}`,
			}, checker.Done, "the refund waits: ", "order CANCELLING (4200 EUR), reservation RELEASED (4200 EUR), payment REFUNDING (4200 EUR)",
		},
		{
			"without an order", "", "RESERVED", "COMPLETED", &world{}, []string{
				`POST /payments/ID/refund {"orphan":true,"seen":"COMPLETED"}`,
				`POST /reservations/ID/release {"orphan":true,"seen":"RESERVED"}`,
			}, checker.Done, "", "no order, reservation RELEASED (4200 EUR), payment REFUNDED (4200 EUR)",
		},
	} {
		w := tt.world
		w.id, w.held = idAt(noon, 1), holding(tt.order, tt.reservation, tt.payment, ages["overdue"], ages["old"], ages["old"])
		flaws, _ := judge(w.held, term)
		r := w.start(t)
		repair, _ := r.order(t.Context(), w.id, w.held, planFor(w.held, flaws))
		if diff := cmp.Diff(tt.want, w.calls); diff != "" {
			t.Errorf("%s: calls (-want +got):\n%s", tt.name, diff)
		}
		if repair.State != tt.state || repair.Detail != tt.detail || repair.After.String() != tt.after {
			t.Errorf("%s: %s, %q, after it %s", tt.name, repair.State, repair.Detail, repair.After)
		}
	}
}

// A command meets something else than the checker saw, or nobody, or a fault: nothing more is done about that order.
func TestRepairsThatFail(t *testing.T) {
	t.Parallel()
	held := holding("CANCELLED", "RESERVED", "COMPLETED", ages["old"], ages["old"], ages["old"])
	flaws, _ := judge(held, term)
	for name, tt := range map[string]struct {
		handler  http.HandlerFunc
		detail   string
		answered bool
	}{
		"changed":       {func(w http.ResponseWriter, _ *http.Request) { refuse(w, facts.Changed("COMPLETED", "REFUNDED")) }, "changed meanwhile, the next check looks again: it is REFUNDED by now, and no longer COMPLETED", true},
		"unknown":       {http.NotFound, "refund: 404: 404 Not Found", true},
		"a fault":       {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "{}", http.StatusInternalServerError) }, "payment: POST /payments/" + held.Order.ID.String() + "/refund: 500 Internal Server Error: ", false},
		"not an answer": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }, "payment: POST /payments/" + held.Order.ID.String() + "/refund: read the answer: invalid character 'h' looking for beginning of value", false},
		"nobody":        {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "payment: POST /payments/" + held.Order.ID.String() + "/refund: at http://", false},
	} {
		var asked []string
		var mu sync.Mutex
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, r.URL.Path)
			mu.Unlock()
			tt.handler(w, r)
		}))
		t.Cleanup(server.Close)
		p := checker.NewPeer(checker.Service{Name: "payment", URL: server.URL}, server.Client())
		r := repairer{peers: three[*checker.Peer]{p, p, p}}
		repair, answered := r.order(t.Context(), held.Order.ID, held, planFor(held, flaws))
		if repair.State != checker.Failed || !strings.HasPrefix(repair.Detail, tt.detail) || answered != tt.answered || !repair.After.Same(held.all()) {
			t.Errorf("%s: %s, %q, answered %v", name, repair.State, repair.Detail, answered)
		}
		if mu.Lock(); slices.ContainsFunc(asked, func(path string) bool { return !strings.HasSuffix(path, "/refund") }) {
			t.Errorf("%s: went on with %v", name, asked)
		}
		mu.Unlock()
	}
}

// A check repairs what it found, up to a number, and the next one goes on.
func TestCheckRepairs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(idsOf(250, time.Minute)...)
	b.exec(`UPDATE orders SET status = 'CANCELLED'`)
	b.exec(`UPDATE payments SET status = 'REFUNDED'`)
	b.extra = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := uuid.MustParse(strings.Split(r.URL.Path, "/")[2])
		b.exec(`UPDATE reservations SET status = 'RELEASED' WHERE order_id = $1`, id)
		answer(w, facts.Fact{ID: id, Status: "RELEASED", ChangedAt: noon})
	})
	const maxLost = 3 // orders in a row
	for _, step := range []struct {
		repair bool
		want   map[checker.State]int
	}{{false, map[checker.State]int{checker.Planned: 250}}, {true, map[checker.State]int{checker.Done: 200, checker.Planned: 50}}, {true, map[checker.State]int{checker.Done: 50}}, {true, map[checker.State]int{}}} {
		if diff := cmp.Diff(step.want, statesOf(b.check(checker.Request{Repair: step.repair, Confirm: step.repair}))); diff != "" {
			t.Errorf("repair %v (-want +got):\n%s", step.repair, diff)
		}
	}
	// Who does not answer is not asked for each order anew.
	b.exec(`UPDATE reservations SET status = 'RESERVED'`)
	b.extra = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusBadGateway) })
	if diff := cmp.Diff(map[checker.State]int{checker.Failed: maxLost, checker.Planned: 250 - maxLost}, statesOf(b.check(checker.Request{Repair: true, Confirm: true}))); diff != "" {
		t.Errorf("nobody answers (-want +got):\n%s", diff)
	}
}

// What breaks the services' own rules is counted anew, first what others depend on: balances after transfers; stock
// last, when orders hold what they should. What goes by a transfer that is not whole is for payment to refuse; the
// others are put right all the same.
func TestAudits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := hourAgo(1)
	b.rules = three[[]facts.Breach]{
		reservations: {{Kind: "stock-mismatch", Subject: "p/1", Detail: "7 and 8"}},
		payments: {
			{Kind: "balance-mismatch", Subject: "u-1", Detail: "1 and 2"}, {Kind: "payment-mismatch", Subject: id.String(), Detail: "no charge"},
			{Kind: "transfer-unbalanced", Subject: "t-1", Detail: "one entry"}, {Kind: "mood-swing", Subject: "x", Detail: "of another kind"},
		},
	}
	var mu sync.Mutex
	var calls []string
	unclear := false
	b.extra = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, r.URL.EscapedPath())
		if unclear && !strings.HasPrefix(r.URL.Path, "/products") && !strings.HasPrefix(r.URL.Path, "/payments") {
			refuse(w, &checker.Refusal{Status: http.StatusConflict, Type: "urn:problem-type:unclear", Detail: "it may be either"})
			return
		}
		answer(w, map[string]string{})
	})
	planned, done := checker.Repair{Action: "recount", State: checker.Planned}, checker.Repair{Action: "recount", State: checker.Done}
	operator := checker.Repair{Action: "operator", State: checker.None}
	found := func(balance, payment, stock, transfer checker.Repair) []checker.Finding {
		return []checker.Finding{
			{Subject: "u-1", Kind: BalanceMismatch, Detail: "1 and 2", Repair: balance}, {Subject: "x", Kind: "mood-swing", Detail: "of another kind", Repair: operator},
			{OrderID: id, Kind: PaymentMismatch, Detail: "no charge", Repair: payment}, {Subject: "p/1", Kind: StockMismatch, Detail: "7 and 8", Repair: stock},
			{Subject: "t-1", Kind: TransferUnbalanced, Detail: "one entry", Repair: transfer},
		}
	}
	if diff := cmp.Diff(found(planned, planned, planned, planned), b.check(checker.Request{}).Findings); diff != "" || len(calls) > 0 {
		t.Errorf("asked %v; found (-want +got):\n%s", calls, diff)
	}
	if diff := cmp.Diff(found(done, done, done, done), b.check(checker.Request{Repair: true}).Findings); diff != "" {
		t.Errorf("repaired (-want +got):\n%s", diff)
	}
	want := []string{"/transfers/t-1/recount", "/payments/" + id.String() + "/recount", "/accounts/u-1/recount", "/products/p%2F1/recount"}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}

	unclear, calls = true, nil
	refused := checker.Repair{Action: "recount", State: checker.Refused, Detail: "it may be either"}
	if diff := cmp.Diff(found(refused, done, done, refused), b.check(checker.Request{Repair: true}).Findings); diff != "" {
		t.Errorf("with an unclear transfer (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// Dead letters are reported by topic. Those that were never redriven are, up to the first that died again: that is an
// operator's.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := []checker.Letter{
		{Topic: "order.dlq", Offset: 1, Key: "b", Reason: "not JSON"}, {Topic: "order.dlq", Offset: 2, Key: "a", Reason: "no such column", Redriven: true},
		{Topic: "order.dlq", Offset: 3, Key: "d", Reason: "behind it"},
		{Topic: "payment.dlq", Offset: 1, Key: "c", Reason: "not JSON", Redriven: true},
	}
	b.cfg.Letters = func(context.Context) ([]checker.Letter, error) { return letters, nil }
	var redriven []checker.Letter
	var broken error
	b.cfg.Redrive = func(_ context.Context, all []checker.Letter) error {
		redriven = append(redriven, all...)
		return broken
	}
	of := func(repair checker.Repair) []checker.Finding {
		return []checker.Finding{
			{Subject: "order.dlq", Kind: checker.DeadLetters, Detail: `3 dead letters, 1 of which died again when they were redriven; the first one's key is "b": not JSON`, Repair: repair},
			{Subject: "payment.dlq", Kind: checker.DeadLetters, Detail: `1 dead letters, 1 of which died again when they were redriven; the first one's key is "c": not JSON`, Repair: checker.Repair{Action: "operator", State: checker.None}},
		}
	}
	if diff := cmp.Diff(of(checker.Repair{Action: "redrive", State: checker.Planned}), b.check(checker.Request{}).Findings); diff != "" || len(redriven) > 0 {
		t.Errorf("redriven %v (-want +got):\n%s", redriven, diff)
	}
	if diff := cmp.Diff(of(checker.Repair{Action: "redrive", State: checker.Done, Detail: "1 were redriven"}), b.check(checker.Request{Repair: true}).Findings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(letters[:1], redriven); diff != "" {
		t.Errorf("redriven (-want +got):\n%s", diff)
	}
	broken = errors.New("Kafka is away")
	if diff := cmp.Diff(of(checker.Repair{Action: "redrive", State: checker.Failed, Detail: "Kafka is away"}), b.check(checker.Request{Repair: true}).Findings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.cfg.Letters = func(context.Context) ([]checker.Letter, error) { return nil, broken }
	if _, err := newChecker(b.cfg).Check(t.Context(), checker.Request{}); !errors.Is(err, broken) || !strings.Contains(err.Error(), "dead letters") {
		t.Errorf("dead letters that cannot be looked for: %v", err)
	}
}
