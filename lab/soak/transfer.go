package soak

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/uuid"
)

// transfer is money that one user sends another.
type transfer struct {
	id       uuid.UUID
	from, to string
	amount   int64
	acked    bool
}

// openAccounts opens all users' accounts with a deposit, before anybody is charged: who sends or gets money has to have
// one.
func (w *world) openAccounts(ctx context.Context, l *load) error {
	for n := range users {
		body := fmt.Sprintf(`{"depositId":%q,"accountId":"user-%d","amount":1,"currency":"EUR"}`, uuid.Must(uuid.NewV7()), n)
		if _, err := l.post(ctx, w.running["payment"].Addr, "/deposits", "", []byte(body), http.StatusCreated); err != nil {
			return fmt.Errorf("open the account of user-%d: %w", n, err)
		}
	}
	return nil
}

// gift is the transfer to make when a request is done with, if there is one: for one request in twenty, to whom an
// earlier one was from.
func (l *load) gift(r *request) *transfer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.n%20 != 3 || r.n <= behind {
		return nil
	}
	other := l.requests[r.n-behind-1].user
	if other == r.user || other == declined || r.user == declined {
		return nil
	}
	t := &transfer{id: uuid.Must(uuid.NewV7()), from: r.user, to: other, amount: 1 + r.n%500}
	l.transfers = append(l.transfers, t)
	return t
}

// give asks for the transfer until that is acknowledged, each time under its id.
func (l *load) give(ctx context.Context, t *transfer) {
	body := map[string]any{"transferId": t.id, "from": t.from, "to": t.to, "amount": t.amount, "currency": "EUR"}
	if l.insist(ctx, "payment", "/transfers", body, http.StatusCreated) {
		l.mu.Lock()
		defer l.mu.Unlock()
		t.acked = true
		l.sum.Transfers++
	}
}

// checkTransfers holds what users were told of their transfers against the ledger.
func (f *facts) checkTransfers(v *verdict) {
	asked := map[uuid.UUID]*transfer{}
	for _, t := range f.transfers {
		asked[t.id] = t
		m, moved := f.ledger.moved[t.id]
		v.that(moved || !t.acked, "a transfer that was acknowledged is lost", "%s from %s to %s: %d", t.id, t.from, t.to, t.amount)
		v.that(!moved || m.from == t.from && m.to == t.to && m.amount == t.amount, "a transfer moved other money than was asked for",
			"%s from %s to %s: %d, asked for from %s to %s: %d", t.id, m.from, m.to, m.amount, t.from, t.to, t.amount)
	}
	for id, m := range f.ledger.moved {
		v.that(m.kind != "transfer" || asked[id] != nil, "money was transferred that nobody asked for", "%s from %s to %s: %d", id, m.from, m.to, m.amount)
	}
}
