-- +goose NO TRANSACTION
-- +goose Up

-- What was moved for an order says so: a lost payments row is then no reason to charge again. Each statement can be run again, and none
-- keeps entries from being added for longer than a scan of the table takes: the index is built while nearly nothing is in it.
ALTER TABLE entries ADD COLUMN IF NOT EXISTS order_id uuid; -- of a charge and a refund, and of what corrects them; NULL: of no order

CREATE INDEX IF NOT EXISTS entries_of_order ON entries (order_id) WHERE order_id IS NOT NULL;

-- What no payment or refund names any more stays of no order.
-- +goose StatementBegin
DO $$ BEGIN
    SET LOCAL enable_hashjoin = on;
    UPDATE entries e SET order_id = t.order_id
    FROM (SELECT id, order_id FROM payments UNION ALL SELECT id, order_id FROM refunds) AS t
    WHERE e.transfer_id = t.id AND e.order_id IS NULL;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP INDEX entries_of_order;
ALTER TABLE entries DROP COLUMN order_id;
