-- +goose NO TRANSACTION
-- +goose Up

-- Why a payment failed, for programs: the code and its parameters, of which the reason is the text. Rows from before, and those of a process of an
-- earlier version, have none. Each statement can be run again.
ALTER TABLE payments
    ADD COLUMN IF NOT EXISTS reason_code       text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS reason_parameters jsonb NOT NULL DEFAULT 'null';

-- An order of free products is paid with nothing: a payment without entries. What is stored fits the wider rule already, and is checked after the lock
-- that changing it takes is gone.
ALTER TABLE payments
    DROP CONSTRAINT IF EXISTS payments_amount_check,
    ADD CONSTRAINT payments_amount_check CHECK (amount >= 0) NOT VALID;

ALTER TABLE payments VALIDATE CONSTRAINT payments_amount_check;

-- +goose Down
-- A payment of nothing is none that the earlier version knows.
DELETE FROM refunds WHERE order_id IN (SELECT order_id FROM payments WHERE amount = 0 AND status <> 'FAILED');

DELETE FROM payments WHERE amount = 0 AND status <> 'FAILED';

ALTER TABLE payments
    DROP CONSTRAINT payments_amount_check,
    ADD CONSTRAINT payments_amount_check CHECK (amount > 0 OR (amount = 0 AND status = 'FAILED')),
    DROP COLUMN reason_code,
    DROP COLUMN reason_parameters;
