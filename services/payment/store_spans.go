package payment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/facts"
)

// The rules, by what is kept of closed spans and what has come since ($2). Each is read as of one moment with the sums
// that it adds to.
const (
	newHalvesSQL = `SELECT 'transfer-unbalanced', transfer_id::text, 'entries that sum to ' || sum(amount)
FROM (SELECT transfer_id, amount FROM audit_transfers UNION ALL SELECT transfer_id, amount FROM entries WHERE n > $2) AS e
GROUP BY transfer_id HAVING sum(amount) <> 0 ORDER BY 2 LIMIT $1`

	newBalancesSQL = `SELECT 'balance-mismatch', coalesce(a.id, p.account_id, e.account_id), coalesce('balance ' || a.balance, 'no such account') || ' and pending ' || coalesce(p.amount, 0)
    || ', entries ' || coalesce(e.amount, 0)
FROM accounts a
    FULL JOIN (SELECT account_id, sum(amount) AS amount FROM pending GROUP BY 1) AS p ON p.account_id = a.id
    FULL JOIN (
        SELECT account_id, sum(amount) AS amount
        FROM (SELECT account_id, amount FROM audit_accounts UNION ALL SELECT account_id, amount FROM entries WHERE n > $2) AS both_of GROUP BY 1
    ) AS e ON e.account_id = coalesce(a.id, p.account_id)
WHERE a.id IS NULL OR a.balance + coalesce(p.amount, 0) <> coalesce(e.amount, 0) ORDER BY 2 LIMIT $1`

	// recordsSQL holds the deposits and transfers of some entries to their records.
	recordsSQL = `SELECT 'transfer-mismatch', m.transfer_id::text, ` + recordText + ` || m.amount || ` + sidesText + `
FROM (
    SELECT transfer_id, sum(amount) AS rest, greatest(sum(amount) FILTER (WHERE amount > 0), -sum(amount) FILTER (WHERE amount < 0)) AS amount, ` + sidesColumns + `
    FROM entries WHERE n > $2 AND n <= $3 AND kind IN ('deposit', 'transfer') GROUP BY transfer_id
) AS m LEFT JOIN transfers t ON t.id = m.transfer_id
WHERE m.rest = 0 AND (m.amount <> CASE WHEN t.refusal = '' THEN t.amount ELSE 0 END OR ` + otherSides + `) ORDER BY 2 LIMIT $1`

	// newMirrorsSQL is entriesRule of some entries.
	newMirrorsSQL = `SELECT 'entries-mismatch', transfer_id::text, ` + unmirroredText + `
FROM entries WHERE n > $2 AND n <= $3 GROUP BY transfer_id HAVING ` + unmirrored + ` ORDER BY 2 LIMIT $1`

	ordersOfEntriesSQL = `WITH wanted AS MATERIALIZED (
    SELECT DISTINCT order_id FROM entries WHERE n > $2 AND n <= $3 AND order_id IS NOT NULL
)` + ofOrders

	ordersOfPaymentsSQL = `WITH wanted AS MATERIALIZED (
    SELECT order_id FROM payments WHERE order_id > $2 AND order_id <= $3
)` + ofOrders

	// ofOrders holds the wanted orders' payments and their entries to each other, each by its key, whatever number
	// there is of others. Entries that were written before entries had orders are looked for among the payer's, where
	// there are none of the order.
	ofOrders = `, held AS (
    SELECT w.order_id, p.id, p.user_id, p.status, p.amount, r.state, m.* FROM wanted w
    LEFT JOIN payments p ON p.order_id = w.order_id LEFT JOIN refunds r ON r.order_id = w.order_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS transfers, coalesce(sum(t.moved) FILTER (WHERE t.transfer_id = p.id), 0) AS charged, coalesce(sum(t.moved) FILTER (WHERE t.transfer_id = r.id), 0) AS returned,
            coalesce(sum(CASE WHEN t.back THEN -t.moved ELSE t.moved END) FILTER (WHERE t.transfer_id IS DISTINCT FROM p.id AND t.transfer_id IS DISTINCT FROM r.id), 0) AS beside,
            coalesce(bool_or(t.moved <> 0) FILTER (WHERE t.transfer_id IS DISTINCT FROM p.id AND t.transfer_id IS DISTINCT FROM r.id), false) AS stray
        FROM (
            SELECT e.transfer_id, bool_or(e.kind = 'refund') AS back,
                greatest(sum(e.amount) FILTER (WHERE e.amount > 0 AND e.kind <> 'correction'), -sum(e.amount) FILTER (WHERE e.amount < 0 AND e.kind <> 'correction'))
                    - coalesce(abs(sum(e.amount) FILTER (WHERE e.kind = 'correction')), 0) AS moved
            FROM entries e WHERE e.order_id = w.order_id GROUP BY e.transfer_id
        ) AS t
    ) AS m
)
SELECT 'payment-mismatch', order_id::text, status || ' of ' || amount || coalesce(' with a refund ' || state, '') || ', charged ' || charged || ', paid back ' || returned FROM held
WHERE status IS NOT NULL
    AND (charged <> CASE status WHEN 'FAILED' THEN 0 ELSE amount END OR returned <> CASE status WHEN 'REFUNDED' THEN amount ELSE 0 END
        OR status <> CASE state WHEN 'WAITING' THEN 'COMPLETED' WHEN 'DONE' THEN 'REFUNDED' END)
    AND NOT (transfers = 0 AND status <> 'FAILED' AND (SELECT coalesce(abs(sum(e.amount)), 0) FROM entries e WHERE e.account_id = held.user_id AND e.transfer_id = held.id) = amount)
UNION ALL
SELECT 'charge-without-payment', order_id::text, coalesce('payment ' || status, 'no payment') || ', charged beside it ' || beside FROM held
WHERE beside <> 0 OR status IS NULL AND stray
ORDER BY 1, 2 LIMIT $1`

	// nextPaymentSQL is where a turn of payments ends.
	nextPaymentSQL = `SELECT order_id FROM payments WHERE order_id > $1 ORDER BY order_id OFFSET $2 LIMIT 1`

	readWalkSQL = `SELECT payment, walked_at, extract(epoch FROM now() - walked_at)::float8 FROM audit_horizon`

	keepWalkSQL = `UPDATE audit_horizon SET payment = $1, walked_at = now()`
)

// recently is how long before an audit orders were placed that are paid after it.
const recently = 5 * time.Minute

// auditNew holds what has come since the closed spans, and all balances, to the rules.
func (a *auditor) auditNew(ctx context.Context) (found []facts.Breach, err error) {
	var after int64
	err = a.spans().AsOfOneMoment(ctx, func(tx pgx.Tx, upto int64) error {
		after = upto
		for _, sql := range []string{newHalvesSQL, newBalancesSQL} {
			some, err := facts.BreachesOf(ctx, tx, sql, facts.MostBreaches, after)
			found = append(found, some...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hold balances and new entries to each other: %w", err)
	}
	some, err := a.rangeOf(ctx, after, math.MaxInt64)
	return append(found, some...), err
}

// rangeOf holds the orders of some entries, by their numbers, to their payments, the deposits and transfers to their
// records, and entries to their other halves, where both are among them.
func (a *auditor) rangeOf(ctx context.Context, after, upto int64) (found []facts.Breach, err error) {
	for _, sql := range []string{ordersOfEntriesSQL, recordsSQL, newMirrorsSQL} {
		some, err := facts.BreachesOf(ctx, a.db, sql, facts.MostBreaches, after, upto)
		if err != nil {
			return nil, fmt.Errorf("hold the entries from %d on to the rules: %w", after+1, err)
		}
		found = append(found, some...)
	}
	return found, nil
}

// walkPayments holds the payments of new orders to the ledger, and those whose turn it is.
func (a *auditor) walkPayments(ctx context.Context, entries int64) (found []facts.Breach, err error) {
	var after, next uuid.UUID
	var at time.Time
	var since float64
	if err := a.db.QueryRow(ctx, readWalkSQL).Scan(&after, &at, &since); err != nil {
		return nil, fmt.Errorf("read how far payments were held to the ledger: %w", err)
	}
	turn := max(paymentsTurn, int64(float64(entries)/2*since/a.reread.Seconds()))
	err = a.db.QueryRow(ctx, nextPaymentSQL, after, turn).Scan(&next)
	end := next
	if errors.Is(err, pgx.ErrNoRows) {
		end, err = uuid.Max, nil // and then from the first one on again
	}
	if err != nil {
		return nil, fmt.Errorf("look for payments whose turn it is: %w", err)
	}
	for _, ids := range [][2]uuid.UUID{{after, end}, {facts.FirstOf(at.Add(-recently)), uuid.Max}} {
		some, err := facts.BreachesOf(ctx, a.db, ordersOfPaymentsSQL, facts.MostBreaches, ids[0], ids[1])
		if err != nil {
			return nil, fmt.Errorf("hold payments to the ledger: %w", err)
		}
		found = append(found, some...)
	}
	if _, err := a.db.Exec(ctx, keepWalkSQL, next); err != nil {
		return nil, fmt.Errorf("store how far payments were held to the ledger: %w", err)
	}
	return found, nil
}
