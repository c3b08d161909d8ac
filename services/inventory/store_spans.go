package inventory

const auditSizeSQL = `SELECT (SELECT last_value FROM reservations_n_seq) + (SELECT coalesce(sum(movements), 0) FROM products)::bigint`

// digestSpanSQL is of reservations as they were when they came, and of changes. A row's hash, and those of what each of
// its changes replaced and put there instead, leave the hash of what was at first.
const digestSpanSQL = `SELECT coalesce(sum(entries), 0)::bigint, coalesce(bit_xor(hash), 0) FROM (
    SELECT count(*) AS entries, bit_xor(` + rowHash + `) AS hash FROM reservations WHERE n > $1 AND n <= $2
    UNION ALL SELECT count(*), bit_xor(` + changeHash + `) FROM audit_changes WHERE n > $1 AND n <= $2
    UNION ALL SELECT 0, bit_xor(` + wasHash + ` # ` + isHash + `) FROM audit_changes WHERE reservation > $1 AND reservation <= $2
) AS parts`

// heldOfRange is the units that orders came to hold, and gave back, by the reservations and changes with numbers above
// $1 and up to $2. Anything that is no line counts for nothing, so that a row that is damaged does not end the audit.
const heldOfRange = `SELECT line ->> 'productId' AS id, sum(sign * (line ->> 'quantity')::numeric) AS units
FROM (
    SELECT 1 AS sign, items FROM reservations WHERE n > $1 AND n <= $2 AND status = 'RESERVED'
    UNION ALL SELECT 1, new_items FROM audit_changes WHERE n > $1 AND n <= $2 AND new_status = 'RESERVED'
    UNION ALL SELECT -1, items FROM audit_changes WHERE n > $1 AND n <= $2 AND status = 'RESERVED'
    UNION ALL SELECT -1, new_items FROM audit_changes WHERE reservation > $1 AND reservation <= $2 AND new_status = 'RESERVED'
    UNION ALL SELECT 1, items FROM audit_changes WHERE reservation > $1 AND reservation <= $2 AND status = 'RESERVED'
) AS moved, jsonb_path_query(items, 'lax $[*] ? (@.productId.type() == "string" && @.quantity.type() == "number")') AS line GROUP BY 1`

const sumHeldSQL = `INSERT INTO audit_held AS s (product_id, units) SELECT id, units FROM (` + heldOfRange + `) AS h WHERE units <> 0 ORDER BY id
ON CONFLICT (product_id) DO UPDATE SET units = s.units + excluded.units`

const dropHeldSQL = `DELETE FROM audit_held`

// newHeldSQL is heldRule, by what is kept of closed spans and what has come since ($1). It is read as of one moment
// with the sums that it adds to.
const newHeldSQL = `SELECT 'stock-mismatch', ` + heldColumns + ` FROM products p FULL JOIN (
    SELECT id, sum(units) AS units
    FROM (SELECT product_id AS id, units FROM audit_held UNION ALL SELECT id, units FROM (` + heldOfRange + `) AS new) AS both_of
    GROUP BY id HAVING sum(units) <> 0
) AS h ON h.id = p.id
WHERE ` + heldWrong + ` ORDER BY 2 LIMIT $3`
