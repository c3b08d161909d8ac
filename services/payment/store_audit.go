package payment

const (
	// digestSpanSQL is how many entries a span has, and the XOR of their hashes.
	digestSpanSQL = `SELECT count(*), coalesce(bit_xor(substr(sha256(convert_to(concat_ws('|', n, account_id, transfer_id, kind, amount, counterparty, order_id), 'UTF8')), 1, 8)::bigint), 0)
FROM entries WHERE n > $1 AND n <= $2`

	sumAccountsSQL = `INSERT INTO audit_accounts AS s (account_id, amount)
SELECT account_id, sum(amount)::bigint FROM entries WHERE n > $1 AND n <= $2 GROUP BY account_id
ON CONFLICT (account_id) DO UPDATE SET amount = s.amount + excluded.amount`

	sumTransfersSQL = `INSERT INTO audit_transfers AS s (transfer_id, amount)
SELECT transfer_id, sum(amount)::bigint FROM entries WHERE n > $1 AND n <= $2 GROUP BY transfer_id HAVING sum(amount) <> 0
ON CONFLICT (transfer_id) DO UPDATE SET amount = s.amount + excluded.amount`

	dropWholeSQL = `DELETE FROM audit_transfers WHERE amount = 0`

	dropAccountsSQL = `DELETE FROM audit_accounts`
	dropHalvesSQL   = `DELETE FROM audit_transfers`
)

const (
	traceSQL = `SELECT ` + entryColumns + ` FROM entries e WHERE e.order_id = ANY($1) ORDER BY e.n`

	// traceOfLostSQL is traceSQL of those orders that have no payment: of nearly none, so it costs a look at an index
	// for each.
	traceOfLostSQL = `SELECT ` + entryColumns + ` FROM entries e
WHERE e.order_id = ANY($1) AND NOT EXISTS (SELECT FROM payments p WHERE p.order_id = e.order_id) ORDER BY e.n`
)

// Rows that are lost are put back from those that are still there, where they agree: the record of a transfer from its
// entries, entries from the record or the payment if the balances hold them. What is lost never becomes a balance: to
// count anew is refused then.
const (
	hasEntriesSQL = `SELECT EXISTS (SELECT FROM entries WHERE account_id = $1) OR EXISTS (SELECT FROM pending WHERE account_id = $1)`

	// lostOfAccountSQL finds a transfer of an account that was made by its record, and of which there is no entry. It
	// reads the account's. Records name accounts by their owners.
	lostOfAccountSQL = `SELECT t.id FROM accounts a JOIN transfers t ON ` + ownerColumn + ` IN (t.from_account, t.to_account) AND t.currency = a.currency
WHERE a.id = $1 AND t.refusal = '' AND t.id NOT IN (SELECT transfer_id FROM entries WHERE account_id = $1) ORDER BY t.id LIMIT 1`

	accountsOfTransferSQL = `SELECT a.id FROM transfers t JOIN accounts a ON ` + ownerColumn + ` IN (t.from_account, t.to_account) AND a.currency = t.currency
WHERE t.id = $1`

	currencyOfSQL = `SELECT currency FROM accounts WHERE id = $1`
)

// A balance changes only under its row's lock. What is pending, and its entries, come from one transaction each, so a
// statement after the lock sees both or neither.
const (
	lockForRecountSQL = `SELECT id FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE`

	recountBalanceSQL = `UPDATE accounts a SET balance = ((SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = a.id)
    - (SELECT coalesce(sum(amount), 0) FROM pending WHERE account_id = a.id))::bigint WHERE id = $1`

	// surplusSQL is by how much an account holds more than its entries say.
	surplusSQL = `SELECT (balance + (SELECT coalesce(sum(amount), 0) FROM pending WHERE account_id = a.id)
    - (SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = a.id))::bigint FROM accounts a WHERE id = $1`

	// Transfers are in no index: it reads all entries.
	entriesOfSQL = `SELECT ` + entryColumns + ` FROM entries e WHERE transfer_id = $1 ORDER BY account_id, n`
)

const (
	lockRefundSQL = `SELECT id, state FROM refunds WHERE order_id = $1 FOR UPDATE`

	// movedSQL is what two transfers moved by the entries of one of these accounts, less what was corrected. Transfers
	// are in no index.
	movedSQL = `SELECT coalesce(abs(sum(amount) FILTER (WHERE transfer_id = $1)), 0)::bigint, coalesce(abs(sum(amount) FILTER (WHERE transfer_id = $2)), 0)::bigint
FROM entries WHERE account_id = ANY($3) AND transfer_id IN ($1, $2)`
)

const (
	dropRefundSQL = `DELETE FROM refunds WHERE order_id = $1`

	setStatusSQL = `UPDATE payments SET status = $2, reason = $3, reason_code = $4, reason_parameters = 'null' WHERE order_id = $1`

	repayPaymentSQL = `UPDATE payments SET id = $2, user_id = $3, amount = $4, currency = $5, status = 'COMPLETED', reason = '',
    reason_code = '', reason_parameters = 'null', created_at = now() WHERE order_id = $1`

	upsertRefundSQL = addRefundsSQL + ` ON CONFLICT (order_id) DO UPDATE SET id = excluded.id, state = excluded.state, attempts = excluded.attempts, last_error = excluded.last_error,
    next_try_at = excluded.next_try_at, cause = excluded.cause, created_at = excluded.created_at, done_at = excluded.done_at`
)

// brokenOfSQL finds a transfer that is not whole, or else one that is no mirror, and has the account on a side.
// Transfers are in no index: it reads all entries.
const brokenOfSQL = `SELECT transfer_id::text, sum(amount) <> 0 FROM entries GROUP BY transfer_id
HAVING bool_or(account_id = $1 OR counterparty = $1) AND (sum(amount) <> 0 OR ` + unmirrored + `) ORDER BY sum(amount) = 0, transfer_id LIMIT 1`
