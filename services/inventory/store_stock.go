package inventory

import "github.com/converge-dev/converge/pkg/facts"

// source is what inventory holds of orders: their reservations that are RESERVED.
var source = facts.Source{
	Set: "reserved", Table: "reservations", ID: "order_id", Member: "status = 'RESERVED'", Items: "items",
	Facts: `SELECT order_id, status = 'RESERVED', status, 0, '', coalesce(released_at, created_at), reason, NULL::text, ` + facts.ItemsSQL("items") + ` FROM reservations`,
}

// rules are what must hold between products, reservations and movements. What is on the shelf is available or reserved:
// there is no shipping yet. Joined from both sides: of a product whose row is lost, orders hold units.
var rules = []facts.Rule{{Kind: "stock-mismatch", SQL: `SELECT ` + heldColumns + `
FROM products p FULL JOIN (
    SELECT i."productId" AS id, sum(i.quantity)::bigint AS units
    FROM reservations r, jsonb_to_recordset(CASE jsonb_typeof(r.items) WHEN 'array' THEN r.items ELSE '[]' END) AS i ("productId" text, quantity bigint)
    WHERE r.status = 'RESERVED' GROUP BY 1
) AS h ON h.id = p.id
WHERE ` + heldWrong + ` ORDER BY 1 LIMIT $1`}, movementsRule}

const (
	heldColumns = `coalesce(p.id, h.id), coalesce('stock ' || p.stock || ', available ' || p.available || ', reserved ' || p.reserved, 'no such product')
    || ', orders hold ' || coalesce(h.units, 0)`

	heldWrong = `p.id IS NULL OR p.available + p.reserved <> p.stock OR p.reserved <> coalesce(h.units, 0)`
)

const findMovementSQL = `SELECT ` + movementColumns + ` FROM movements WHERE id = $1`

const listMovementsSQL = `SELECT ` + movementColumns + ` FROM movements WHERE product_id = $1 AND n < $2 ORDER BY n DESC LIMIT $3`

const firstMovementSQL = `SELECT ` + movementColumns + ` FROM movements WHERE product_id = $1 ORDER BY n LIMIT 1`

// A number that was given is not given again, though its movement is lost: its place stays empty, and is found.
const lastMovementSQL = `SELECT greatest(p.movements, m.n) AS n, coalesce(m.stock, 0) AS stock
FROM products p LEFT JOIN LATERAL (SELECT n, stock FROM movements WHERE product_id = p.id ORDER BY n DESC LIMIT 1) AS m ON true WHERE p.id = $1`

const addMovementSQL = `INSERT INTO movements (id, product_id, n, kind, units, delta, stock, note) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (id) DO NOTHING RETURNING ` + movementColumns

const moveStockSQL = `UPDATE products SET stock = $2, available = $2 - reserved, movements = $3, version = version + 1, updated_at = now()
WHERE id = $1 RETURNING ` + productColumns

// What movements say, by product: the number of the last one, the units that are on the shelf, and whether each follows
// the one before. They are looked at from the last count on, which needs none before it.
const (
	evidenceFrom = `SELECT product_id AS id, max(n) AS n, sum(CASE WHEN n = counted THEN stock ELSE delta END)::bigint AS units,
    bool_and(coalesce(n = counted OR n = n_before + 1 AND stock = stock_before + delta, false)) AS whole
FROM (
    SELECT product_id, n, delta, stock, lag(n) OVER by_n AS n_before, lag(stock) OVER by_n AS stock_before,
        max(n) FILTER (WHERE kind = 'count') OVER (PARTITION BY product_id) AS counted
    FROM movements`

	evidenceTo = ` WINDOW by_n AS (PARTITION BY product_id ORDER BY n)
) AS m WHERE n >= coalesce(counted, 0) GROUP BY product_id`

	evidenceSQL = `SELECT p.movements AS counted, coalesce(m.n, 0) AS n, coalesce(m.units, 0) AS units, coalesce(m.whole, false) AS whole
FROM products p LEFT JOIN (` + evidenceFrom + ` WHERE product_id = $1` + evidenceTo + `) AS m ON m.id = p.id WHERE p.id = $1`
)

// The schema gives a new product its first movement.
const createProductSQL = `INSERT INTO products (id, name, price, currency, stock, available, reserved, description) VALUES ($1, $2, $3, $4, $5, $5, 0, $6)
ON CONFLICT DO NOTHING RETURNING ` + productColumns

const changeProductSQL = `UPDATE products SET name = $2, price = $3, currency = $4, description = $5, version = version + 1, updated_at = now()
WHERE id = $1 RETURNING ` + productColumns

const findProductSQL = `SELECT ` + productColumns + ` FROM products WHERE id = $1`

const listProductsSQL = `SELECT ` + productColumns + ` FROM products WHERE id > $1 ORDER BY id LIMIT $2`

const findReservationSQL = `SELECT order_id, status, items, reason, reason_code, reason_parameters, created_at, released_at FROM reservations WHERE order_id = $1`

const pricedProductsSQL = `SELECT ` + productColumns + ` FROM products WHERE id = ANY($1)`

const (
	// Its units are counted under the product's lock: what is reserved or released meanwhile waits for that.
	lockProductSQL = findProductSQL + ` FOR UPDATE`

	// What is searched for is a subquery, so that it is built once and not for each reservation.
	heldUnitsSQL = `SELECT coalesce(sum(i.quantity), 0)::bigint FROM reservations r, jsonb_to_recordset(r.items) AS i ("productId" text, quantity bigint)
WHERE r.status = 'RESERVED' AND r.items @> (SELECT jsonb_build_array(jsonb_build_object('productId', $1::text))) AND i."productId" = $1`

	recountProductSQL = `UPDATE products SET stock = $2, reserved = $3, available = $2::bigint - $3::bigint, movements = $4, version = version + 1, updated_at = now()
WHERE id = $1 RETURNING ` + productColumns
)

// The rows are locked, and their units are moved later in the transaction: what is in stock then comes from the books.
const turnProductsSQL = `UPDATE products SET version = version + 1 WHERE id = ANY($1) RETURNING id, name, price, currency, version`

// movementsRule holds stocks to their movements, from both sides: a stock that nobody moved, a movement that is lost, a
// product that is.
var movementsRule = facts.Rule{Kind: "stock-mismatch", SQL: `SELECT ` + movementsColumns + `
FROM products p FULL JOIN (` + evidenceFrom + evidenceTo + `) AS m ON m.id = p.id
WHERE ` + movementsWrong + ` ORDER BY 1 LIMIT $1`}

const (
	movementsColumns = `coalesce(p.id, m.id), CASE
    WHEN p.id IS NULL THEN 'the product is gone, its movements make ' || m.units
    WHEN m.id IS NULL THEN 'stock ' || p.stock || ', no movements'
    ELSE 'stock ' || p.stock || ' after ' || p.movements || ' movements, movement ' || m.n || ' makes it ' || m.units
        || CASE WHEN m.whole THEN '' ELSE ', and some before it are missing or changed' END
    END`

	movementsWrong = `p.id IS NULL OR m.id IS NULL OR NOT m.whole OR p.stock <> m.units OR p.movements <> m.n`
)

// Rows are locked in the order of their ids, as by whoever reserves.
const retellSQL = `SELECT ` + productColumns + ` FROM products WHERE id > $1 ORDER BY id LIMIT $2 FOR UPDATE`

// Rows are locked in the order of their ids, as by whoever else takes several.
const retellOnlySQL = `SELECT ` + productColumns + ` FROM products WHERE id = ANY($1) ORDER BY id FOR UPDATE`
