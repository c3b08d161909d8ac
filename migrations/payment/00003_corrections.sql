-- +goose NO TRANSACTION
-- +goose Up

-- An entry that should not be there is never deleted: another one takes it back. What is stored fits the wider rule already, and is
-- checked after the lock that changing it takes is gone. Both statements can be run again.
ALTER TABLE entries
    DROP CONSTRAINT IF EXISTS entries_kind_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('opening', 'deposit', 'transfer', 'charge', 'refund', 'correction')) NOT VALID;

ALTER TABLE entries VALIDATE CONSTRAINT entries_kind_check;

-- +goose Down
UPDATE entries SET kind = 'transfer' WHERE kind = 'correction';

ALTER TABLE entries
    DROP CONSTRAINT entries_kind_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('opening', 'deposit', 'transfer', 'charge', 'refund'));
