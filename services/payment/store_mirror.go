package payment

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/facts"
)

// Both entries of a transfer say the same of it: each names the other's account, and they have one kind and one order.
// Sums do not show an entry that was moved to another account: it still adds up, and to count balances anew by it would
// take the money from one and give it to another. A correction explains what a person has found out, so a transfer with
// one is not held to this, but for one that stands where the other half would be: what completes a transfer there is of
// the transfer's own kind.
const unmirrored = `count(*) = 2 AND sum(amount) = 0 AND CASE count(*) FILTER (WHERE kind = 'correction')
    WHEN 0 THEN min(account_id) <> min(counterparty) OR max(account_id) <> max(counterparty)
        OR min(kind) <> max(kind) OR count(order_id) = 1 OR min(order_id::text) <> max(order_id::text)
    WHEN 1 THEN min(account_id) FILTER (WHERE kind = 'correction') = min(counterparty) FILTER (WHERE kind <> 'correction')
    ELSE false END`

const unmirroredText = `'its entries do not tell of one transfer: '
    || string_agg(kind || ' of ' || amount || ' of ' || account_id || ' with ' || counterparty || coalesce(' for order ' || order_id, ''), '; ' ORDER BY n)
    || '. A person has to say what it was: entries are not changed, a correction takes back what is wrong'`

const (
	// alienSQL tells whether what a payer was charged with these transfers is of another order.
	alienSQL = `SELECT EXISTS (SELECT FROM entries WHERE account_id = ANY($1) AND transfer_id = ANY($2) AND order_id <> $3)`

	// unmirroredOfSQL tells whether the entries of a transfer of an order do not tell of one transfer.
	unmirroredOfSQL = `SELECT EXISTS (SELECT FROM entries WHERE order_id = $1 GROUP BY transfer_id HAVING ` + unmirrored + `)`

	// sharedSQL is alienSQL of all accounts. It reads all entries.
	sharedSQL = `SELECT EXISTS (SELECT FROM entries WHERE transfer_id = ANY($1) AND order_id IS DISTINCT FROM $2)`
)

// entriesRule holds entries to their other halves, accountsRule accounts to what their names and entries say of them.
// The first entry of an account is enough to know its currency: no transfer is between two.
var (
	entriesRule = facts.Rule{Kind: "entries-mismatch", SQL: `SELECT transfer_id::text, ` + unmirroredText + `
FROM entries GROUP BY transfer_id HAVING ` + unmirrored + ` ORDER BY 1 LIMIT $1`}

	accountsRule = facts.Rule{Kind: "account-mismatch", SQL: `SELECT a.id, 'in ' || a.currency || CASE WHEN a.overdraft THEN ', may go below zero' ELSE '' END
    || coalesce(', first moved something with ' || o.id || ', which is in ' || o.currency, '') || '. Only a person can say what it is to be'
FROM accounts a
    LEFT JOIN LATERAL (SELECT counterparty FROM entries WHERE account_id = a.id ORDER BY n LIMIT 1) AS e ON true
    LEFT JOIN accounts o ON o.id = e.counterparty
WHERE a.overdraft <> (a.id ~ '^(` + external + `|` + suspense + `)\.[A-Z]{3}$') OR o.currency <> a.currency ORDER BY 1 LIMIT $1`}
)

// alien tells whether what was charged for a payment was charged for another order: its row is a copy, or has got
// another order. It is not this order's to be paid back.
func alien(ctx context.Context, tx pgx.Tx, s stored) (yes bool, err error) {
	return yes, tx.QueryRow(ctx, alienSQL, []string{s.UserID, furtherID(s.UserID, s.Currency)}, []uuid.UUID{s.ID}, s.OrderID).Scan(&yes)
}

// shared tells whether a transfer of a trace is another order's as well, by its other entry.
func shared(ctx context.Context, tx pgx.Tx, order uuid.UUID, t trace) (yes bool, err error) {
	ids := make([]uuid.UUID, len(t))
	for i, one := range t {
		ids[i] = one.ID
	}
	return yes, tx.QueryRow(ctx, sharedSQL, ids, order).Scan(&yes)
}
