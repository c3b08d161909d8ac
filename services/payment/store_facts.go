package payment

import "github.com/converge-dev/converge/pkg/facts"

// source is what payment holds of orders: their payments that are COMPLETED. One whose refund waits still is.
var source = facts.Source{
	Set: "paid", Table: "payments", ID: "order_id", Member: "status = 'COMPLETED'", Amount: "amount", Currency: "currency", User: "user_id", Key: "p.order_id",
	Facts: `SELECT p.order_id, p.status = 'COMPLETED', CASE r.state WHEN 'WAITING' THEN '` + refunding + `' ELSE p.status END, p.amount, p.currency,
    greatest(p.created_at, r.created_at, r.done_at), CASE r.state WHEN 'WAITING' THEN r.last_error ELSE p.reason END, p.user_id, ''
FROM payments p LEFT JOIN refunds r ON r.order_id = p.order_id`,
}

// refunding is the status, to others, of a payment whose refund waits.
const refunding = "REFUNDING"

// What a record of a transfer, t, says is held to what its entries, m, say of it, where both of these are there.
const (
	sidesColumns = `min(account_id) FILTER (WHERE amount < 0 AND kind <> 'correction') AS payer, min(account_id) FILTER (WHERE amount > 0 AND kind <> 'correction') AS payee,
        min(kind) FILTER (WHERE kind <> 'correction') AS kind`

	otherSides = `t.refusal = '' AND (m.kind <> t.kind OR split_part(m.payer, E'\t', 1) <> t.from_account OR split_part(m.payee, E'\t', 1) <> t.to_account
    OR (SELECT currency FROM accounts WHERE id = m.payer) <> t.currency)`

	recordText = `coalesce(t.kind || ' of ' || t.amount || ' ' || t.currency || ' from ' || t.from_account || ' to ' || t.to_account || coalesce(', ' || nullif(t.refusal, ''), ''), 'no record')
    || ', entries moved '`

	sidesText = `coalesce(' as a ' || m.kind || ' from ' || m.payer || ' to ' || m.payee, '')`
)

// rules are what must hold of the ledger, at any moment. A transfer moved as much as the larger of its sides, less what
// was corrected of it. Entries are grouped once: in two steps, PostgreSQL guesses that there are 200 transfers, and
// joins a million by loops.
var rules = []facts.Rule{
	{Kind: "transfer-unbalanced", SQL: `SELECT transfer_id::text, count(*) || ' entries that sum to ' || sum(amount)
FROM entries GROUP BY transfer_id HAVING sum(amount) <> 0 ORDER BY 1 LIMIT $1`},

	// Joined from both sides: of an account whose row is lost, the entries are there.
	{Kind: "balance-mismatch", SQL: `SELECT coalesce(a.id, p.account_id, e.account_id), coalesce('balance ' || a.balance, 'no such account') || ' and pending ' || coalesce(p.amount, 0)
    || ', entries ' || coalesce(e.amount, 0)
FROM accounts a
    FULL JOIN (SELECT account_id, sum(amount) AS amount FROM pending GROUP BY 1) AS p ON p.account_id = a.id
    FULL JOIN (SELECT account_id, sum(amount) AS amount FROM entries GROUP BY 1) AS e ON e.account_id = coalesce(a.id, p.account_id)
WHERE a.id IS NULL OR a.balance + coalesce(p.amount, 0) <> coalesce(e.amount, 0) ORDER BY 1 LIMIT $1`},

	// Deposits and transfers have a record, whose id must not be taken twice, and entries. Entries that lack their
	// other half are another rule's.
	{Kind: "transfer-mismatch", SQL: `WITH moved AS (
    SELECT transfer_id, sum(amount) AS rest, bool_or(kind <> 'correction') AS own,
        greatest(sum(amount) FILTER (WHERE amount > 0 AND kind <> 'correction'), -sum(amount) FILTER (WHERE amount < 0 AND kind <> 'correction'))
            - coalesce(abs(sum(amount) FILTER (WHERE kind = 'correction')), 0) AS amount, ` + sidesColumns + `
    FROM entries WHERE kind IN ('deposit', 'transfer', 'correction') GROUP BY 1
) SELECT coalesce(t.id, m.transfer_id)::text, ` + recordText + ` || coalesce(m.amount, 0) || ` + sidesText + `
FROM transfers t FULL JOIN moved m ON m.transfer_id = t.id
WHERE coalesce(m.rest, 0) = 0 AND (t.id IS NOT NULL OR m.own) AND (coalesce(m.amount, 0) <> CASE WHEN t.refusal = '' THEN t.amount ELSE 0 END OR ` + otherSides + `)
ORDER BY 1 LIMIT $1`},

	{Kind: "payment-mismatch", SQL: `WITH moved AS (
    SELECT transfer_id, greatest(sum(amount) FILTER (WHERE amount > 0 AND kind <> 'correction'), -sum(amount) FILTER (WHERE amount < 0 AND kind <> 'correction'))
        - coalesce(abs(sum(amount) FILTER (WHERE kind = 'correction')), 0) AS amount
    FROM entries GROUP BY 1
) SELECT p.order_id::text, p.status || ' of ' || p.amount || coalesce(' with a refund ' || r.state, '')
    || ', charged ' || coalesce(c.amount, 0) || ', paid back ' || coalesce(b.amount, 0)
FROM payments p LEFT JOIN moved c ON c.transfer_id = p.id LEFT JOIN refunds r ON r.order_id = p.order_id LEFT JOIN moved b ON b.transfer_id = r.id
WHERE coalesce(c.amount, 0) <> CASE p.status WHEN 'FAILED' THEN 0 ELSE p.amount END
    OR coalesce(b.amount, 0) <> CASE p.status WHEN 'REFUNDED' THEN p.amount ELSE 0 END
    OR p.status <> CASE r.state WHEN 'WAITING' THEN 'COMPLETED' WHEN 'DONE' THEN 'REFUNDED' END ORDER BY 1 LIMIT $1`},

	// What was charged for an order is its payment's, or was paid back. What is not has lost its row, or was charged
	// beside it.
	{Kind: "charge-without-payment", SQL: `WITH stray AS (
    SELECT e.order_id, p.status, CASE WHEN bool_or(e.kind = 'refund') THEN -1 ELSE 1 END
        * (greatest(sum(e.amount) FILTER (WHERE e.amount > 0 AND e.kind <> 'correction'), -sum(e.amount) FILTER (WHERE e.amount < 0 AND e.kind <> 'correction'))
            - coalesce(abs(sum(e.amount) FILTER (WHERE e.kind = 'correction')), 0)) AS amount
    FROM entries e LEFT JOIN payments p ON p.order_id = e.order_id LEFT JOIN refunds r ON r.order_id = e.order_id
    WHERE e.order_id IS NOT NULL AND e.transfer_id IS DISTINCT FROM p.id AND e.transfer_id IS DISTINCT FROM r.id GROUP BY e.order_id, e.transfer_id, p.status
) SELECT order_id::text, coalesce('payment ' || status, 'no payment') || ', charged beside it ' || sum(amount) FROM stray
GROUP BY order_id, status HAVING sum(amount) <> 0 OR status IS NULL AND bool_or(amount <> 0) ORDER BY 1 LIMIT $1`},

	entriesRule, accountsRule,
}
