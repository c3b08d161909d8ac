-- +goose NO TRANSACTION
-- +goose Up

-- Why an order was cancelled, for programs: the code and its parameters, of which the reason is the text. Rows from before, and those of a process
-- of an earlier version, have none. Each statement can be run again.
ALTER TABLE orders
    ADD COLUMN IF NOT EXISTS reason_code       text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS reason_parameters jsonb NOT NULL DEFAULT 'null';

-- An order of free products costs nothing. What is stored fits the wider rule already, and is checked after the lock that changing it takes is gone.
ALTER TABLE orders
    DROP CONSTRAINT IF EXISTS orders_amount_check,
    ADD CONSTRAINT orders_amount_check CHECK (amount >= 0) NOT VALID;

ALTER TABLE orders VALIDATE CONSTRAINT orders_amount_check;

-- +goose Down
-- An order that costs nothing is none that the earlier version knows.
DELETE FROM cancelling WHERE order_id IN (SELECT id FROM orders WHERE amount = 0);

DELETE FROM orders WHERE amount = 0;

ALTER TABLE orders
    DROP CONSTRAINT orders_amount_check,
    ADD CONSTRAINT orders_amount_check CHECK (amount > 0),
    DROP COLUMN reason_code,
    DROP COLUMN reason_parameters;
