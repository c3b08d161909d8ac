-- +goose NO TRANSACTION
-- +goose Up

-- What is stored fits the wider rules already. They are checked after the lock that changing them takes is gone, so that orders
-- are taken meanwhile. Both statements can be run again.
ALTER TABLE orders
    DROP CONSTRAINT IF EXISTS orders_status_check,
    DROP CONSTRAINT IF EXISTS orders_check,
    DROP CONSTRAINT IF EXISTS orders_settled_at_check,
    ADD CONSTRAINT orders_status_check CHECK (status IN ('PENDING', 'CONFIRMED', 'CANCELLING', 'CANCELLED')) NOT VALID,
    ADD CONSTRAINT orders_settled_at_check CHECK ((status IN ('PENDING', 'CANCELLING')) = (settled_at IS NULL)) NOT VALID;

ALTER TABLE orders VALIDATE CONSTRAINT orders_status_check, VALIDATE CONSTRAINT orders_settled_at_check;

-- The orders that are CANCELLING, which are few: to see how many and since when, without an index on a status (not HOT).
CREATE TABLE IF NOT EXISTS cancelling (
    order_id uuid PRIMARY KEY,
    since    timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE cancelling;

-- An order that was being cancelled is cancelled: what was not undone for it by now is on record with its peers.
UPDATE orders SET status = 'CANCELLED', settled_at = now() WHERE status = 'CANCELLING';

ALTER TABLE orders
    DROP CONSTRAINT orders_status_check,
    DROP CONSTRAINT orders_settled_at_check,
    ADD CONSTRAINT orders_status_check CHECK (status IN ('PENDING', 'CONFIRMED', 'CANCELLED')),
    ADD CONSTRAINT orders_check CHECK ((status = 'PENDING') = (settled_at IS NULL));
