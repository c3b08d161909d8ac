package payment

const openAccountsSQL = `INSERT INTO accounts (id, currency, overdraft)
SELECT id, currency, overdraft FROM unnest($1::text[], $2::text[], $3::boolean[]) AS opened (id, currency, overdraft)
WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.id = opened.id COLLATE "C") -- nearly all exist, and need not be tried
ORDER BY id COLLATE "C"
ON CONFLICT DO NOTHING RETURNING id`

const openFurtherSQL = `INSERT INTO accounts (id, currency, overdraft)
SELECT w.owner || E'\t' || w.currency, w.currency, false FROM unnest($1::text[], $2::text[]) AS w (owner, currency)
WHERE NOT EXISTS (SELECT FROM accounts a WHERE ` + ownerColumn + ` = w.owner AND a.currency = w.currency)
ORDER BY (w.owner || E'\t' || w.currency) COLLATE "C"
ON CONFLICT DO NOTHING RETURNING id`

const lockAccountsSQL = readAccountsSQL + ` ORDER BY a.id FOR UPDATE OF a`

const takePendingSQL = `DELETE FROM pending p USING unnest($1::text[], $2::text[]) AS w (owner, currency), accounts a
WHERE ` + ownerColumn + ` = w.owner AND a.currency = w.currency AND p.account_id = a.id RETURNING p.account_id, p.amount`

const readAccountsSQL = `SELECT a.id, a.currency, a.balance, a.overdraft, ` + frozenColumn + wantedJoin

const (
	moveBalancesSQL = `UPDATE accounts a SET balance = balance + amount
FROM unnest($1::text[], $2::bigint[]) AS moved (id, amount) WHERE a.id = moved.id`

	addPendingSQL = `INSERT INTO pending (account_id, amount) SELECT * FROM unnest($1::text[], $2::bigint[])`

	addEntriesSQL = `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty, order_id)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::uuid[])`
)

const idOfSQL = `SELECT a.id FROM accounts a WHERE ` + ownerColumn + ` = $1 AND a.currency = $2`

// The id comes first: who comes second with it waits for the first one's end, holds nothing meanwhile, and then reads
// its outcome.
const (
	addTransferSQL = `INSERT INTO transfers (id, kind, from_account, to_account, amount, currency) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING RETURNING created_at`

	readTransferSQL = `SELECT id, kind, from_account, to_account, amount, currency, refusal, reason, created_at FROM transfers WHERE id = $1`

	refuseTransferSQL = `UPDATE transfers SET refusal = $2, reason = $3 WHERE id = $1`
)

// frozenColumn tells whether an account a is frozen: a user's first one speaks for those that are opened after it.
// These can be frozen alone, too.
const frozenColumn = `(a.frozen OR strpos(a.id, E'\t') > 0 AND coalesce((SELECT f.frozen FROM accounts f WHERE f.id = ` + ownerColumn + `), false))`

const (
	// Transactions that undo run one after the other, a repair's too: what one has read of a payment, no other changes
	// before it ends. Of one merchant they could not do otherwise, for each locks its account.
	undoLockSQL = `SELECT pg_advisory_xact_lock(7305804402557312341)`

	// creditedJoin is where a payment p's charge went to, c.account_id, and where it came from: a refund takes the same
	// way back, whatever the merchant is called by now. Of what was charged before entries had orders it is NULL.
	creditedJoin = ` LEFT JOIN LATERAL (
    SELECT e.account_id, e.counterparty FROM entries e
    WHERE e.order_id = p.order_id AND e.transfer_id = p.id AND e.amount > 0 AND e.kind <> 'correction' LIMIT 1
) AS c ON true`

	readForRefundSQL = `SELECT p.order_id, p.id, p.user_id, p.amount, p.currency, p.status, p.reason, p.reason_code, p.reason_parameters,
    r.order_id IS NOT NULL AND r.state = 'WAITING' AS waits,
    coalesce(c.account_id, ''), coalesce(c.counterparty, '')
FROM payments p LEFT JOIN refunds r ON r.order_id = p.order_id` + creditedJoin + ` WHERE p.order_id = ANY($1)`

	refundPaymentsSQL = `UPDATE payments SET status = 'REFUNDED' WHERE order_id = ANY($1) AND status = 'COMPLETED'`

	addRefundsSQL = `INSERT INTO refunds (order_id, id, state, attempts, last_error, next_try_at, cause, created_at, done_at)
SELECT order_id, id, state, 1, last_error, next_try_at, cause, $7::timestamptz, CASE WHEN state = 'DONE' THEN $7::timestamptz END
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::jsonb[]) AS attempt (order_id, id, state, last_error, next_try_at, cause)`
)

const addCorrectionSQL = `INSERT INTO corrections (id, transfer_id, kind, debit, credit, amount, currency, order_id, note, asked_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, nullif($8, '00000000-0000-0000-0000-000000000000'::uuid), $9, $10) ON CONFLICT DO NOTHING RETURNING created_at`

const readCorrectionSQL = `SELECT ` + correctionColumns + ` FROM corrections WHERE id = $1`

const listCorrectionsSQL = `SELECT ` + correctionColumns + `, n FROM corrections WHERE n < $1 ORDER BY n DESC LIMIT $2`

const setCorrectionSQL = `UPDATE corrections SET kind = $2, order_id = nullif($3, '00000000-0000-0000-0000-000000000000'::uuid) WHERE id = $1`

// currenciesOfSQL are those of accounts that a transfer has entries of.
const currenciesOfSQL = `SELECT DISTINCT currency FROM accounts WHERE id = ANY($1)`

const (
	// halvesSQL tells whether a transfer of an order lacks an entry.
	halvesSQL = `SELECT EXISTS (SELECT FROM entries WHERE order_id = $1 GROUP BY transfer_id HAVING sum(amount) <> 0)`

	failPaymentSQL = `UPDATE payments SET id = $2, status = 'FAILED', reason = $3, reason_code = $4, reason_parameters = 'null' WHERE order_id = $1`
)

const (
	dueRefundSQL = `SELECT r.id, r.attempts, r.cause, p.order_id, p.id, p.user_id, p.amount, p.currency, p.status, p.reason,
    coalesce(c.account_id, ''), coalesce(c.counterparty, '')
FROM refunds r JOIN payments p ON p.order_id = r.order_id` + creditedJoin + `
WHERE r.state = 'WAITING' AND r.next_try_at <= $1 ORDER BY r.next_try_at LIMIT 1 FOR UPDATE OF r SKIP LOCKED`

	doneRefundSQL = `UPDATE refunds SET state = 'DONE', attempts = attempts + 1, next_try_at = NULL, done_at = $2 WHERE order_id = $1`

	againRefundSQL = `UPDATE refunds SET attempts = attempts + 1, last_error = $2, next_try_at = $3 WHERE order_id = $1 AND state = 'WAITING'`
)

// The accounts are found by steps from one to the next, however many rows each has.
const (
	findPendingSQL = `WITH RECURSIVE next AS (
    (SELECT account_id FROM pending WHERE account_id > $2 ORDER BY account_id LIMIT 1)
    UNION ALL
    SELECT (SELECT p.account_id FROM pending p WHERE p.account_id > next.account_id ORDER BY p.account_id LIMIT 1)
    FROM next WHERE next.account_id IS NOT NULL
) SELECT account_id FROM next WHERE account_id IS NOT NULL LIMIT $1`

	lockToFoldSQL = `SELECT id FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE SKIP LOCKED`

	foldSQL = `WITH taken AS (DELETE FROM pending WHERE account_id = ANY($1) RETURNING account_id, amount)
UPDATE accounts a SET balance = balance + t.amount
FROM (SELECT account_id, sum(amount)::bigint AS amount FROM taken GROUP BY account_id) AS t WHERE a.id = t.account_id`
)

const waitingRefundsSQL = `SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM refunds WHERE state = 'WAITING'`
