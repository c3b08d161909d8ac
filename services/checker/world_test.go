package checker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// world is one order at three services that carry out commands by their contract, without tables and Kafka. What their
// events bring about happens when they are delivered.
type world struct {
	id   uuid.UUID
	held Held

	soldOut, broke, owing bool // reserve and charge are refused, and nothing can be paid back
	unclear               bool // charge is refused, for nobody can say what was charged
	unheard, told         bool // order has not heard that it is paid, and takes nobody's word for it; payment has told again
	undo                  bool // the order was asked to be cancelled, and the others hear of it

	mu    sync.Mutex
	calls []string // what was asked, with the bodies
}

// start serves the world, and returns what a checker asks.
func (w *world) start(t *testing.T) repairer {
	t.Helper()
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	r := repairer{by: "test"}
	for i, name := range names {
		r.peers[i] = checker.NewPeer(checker.Service{Name: name, URL: server.URL}, server.Client())
	}
	return r
}

type command struct {
	Seen     string `json:"seen"`
	Reserved bool   `json:"reserved"`
	Paid     bool   `json:"paid"`
	Tell     bool   `json:"tell"`
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var raw json.RawMessage
	var c command
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&raw); err != nil {
			panic(err)
		}
		if err := json.Unmarshal(raw, &c); err != nil {
			panic(err)
		}
	}
	w.calls = append(w.calls, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, strings.ReplaceAll(r.URL.EscapedPath(), w.id.String(), "ID"), raw)))
	what := strings.TrimPrefix(r.URL.Path, "/")
	switch strings.ReplaceAll(what, w.id.String(), "ID") {
	case "orders/ID":
		_, _ = rw.Write([]byte(`{"orderId":"` + w.id.String() + `","userId":"u-1","items":[{"productId":"p-1","quantity":2}],"amount":4200,"currency":"EUR","status":"` + w.held.Order.Status + `"}`))
	case "reservations/ID/reserve":
		w.set(rw, c, &w.held.Reservation, "RESERVED", true, w.refusal(w.soldOut, "out-of-stock", "out of stock: p-1: 2 wanted, 0 available"))
	case "reservations/ID/release":
		w.set(rw, c, &w.held.Reservation, "RELEASED", false, nil)
	case "payments/ID/charge":
		refusal := w.refusal(w.broke, "insufficient-balance", "u-1 has 1 EUR of 4200")
		if w.unclear {
			refusal = w.refusal(true, "unclear", "only a person can say what is right")
		}
		w.told = w.told || c.Tell && checker.Status(w.held.Payment) == c.Seen
		w.set(rw, c, &w.held.Payment, "COMPLETED", true, refusal)
	case "payments/ID/refund":
		w.set(rw, c, &w.held.Payment, w.refunded(), w.owing, nil)
	case "orders/ID/reconcile":
		w.reconcile(rw, c)
	default:
		http.NotFound(rw, r)
	}
}

func (w *world) refusal(so bool, typ, detail string) error {
	if !so {
		return nil
	}
	return web.Problem(http.StatusConflict, typ, "Refused", detail)
}

func (w *world) refunded() string {
	if w.owing {
		return "REFUNDING"
	}
	return "REFUNDED"
}

// set makes a fact what it is to be, unless it is so, or is not what was seen, or cannot be.
func (w *world) set(rw http.ResponseWriter, c command, f **facts.Fact, to string, member bool, refusal error) {
	switch is := checker.Status(*f); {
	case is == to:
	case is != c.Seen:
		refuse(rw, facts.Changed(c.Seen, is))
		return
	case refusal != nil:
		refuse(rw, refusal)
		return
	default:
		*f = &facts.Fact{ID: w.id, Status: to, Member: member, Amount: 4200, Currency: "EUR", ChangedAt: noon}
	}
	answer(rw, *f)
}

func refuse(rw http.ResponseWriter, err error) {
	rw.Header().Set("Content-Type", "application/problem+json")
	rw.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(rw).Encode(err)
}

func (w *world) reconcile(rw http.ResponseWriter, c command) {
	is := checker.Status(w.held.Order)
	if is != c.Seen {
		refuse(rw, facts.Changed(c.Seen, is))
		return
	}
	to := is
	switch {
	case is == "PENDING" && c.Reserved && c.Paid && w.unheard:
		refuse(rw, web.Problem(http.StatusConflict, "unproven", "Unproven", "payment has not told that the order is paid"))
		return
	case is == "PENDING" && c.Reserved && c.Paid:
		to = "CONFIRMED"
	case is == "PENDING", is == "CONFIRMED" && !c.Paid:
		to, w.undo = "CANCELLED", true
	case is == "CONFIRMED" && !c.Reserved:
		to, w.undo = "CANCELLING", true
	case is == "CANCELLING" && !c.Reserved && !c.Paid:
		to = "CANCELLED"
	case is == "CANCELLING", is == "CANCELLED" && (c.Reserved || c.Paid):
		w.undo = true
	}
	w.held.Order = &facts.Fact{ID: w.id, Status: to, Member: to == "CONFIRMED", Amount: 4200, Currency: "EUR", ChangedAt: noon}
	answer(rw, w.held.Order)
}

// deliver lets the services hear what was told, and pay back what they can by now.
func (w *world) deliver() {
	if o := w.held.Order; w.told && o.Status == "PENDING" {
		o.Status, o.Member = "CONFIRMED", true
	}
	if p := w.held.Payment; p != nil && p.Member && (w.undo || p.Status == "REFUNDING") {
		p.Status, p.Member = w.refunded(), w.owing
	}
	if r := w.held.Reservation; w.undo && r != nil && r.Member {
		r.Status, r.Member = "RELEASED", false
	}
	if o := w.held.Order; w.undo && o.Status == "CANCELLING" && !w.held.paid() && !w.held.reserved() {
		o.Status = "CANCELLED"
	}
}
