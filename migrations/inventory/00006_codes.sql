-- +goose Up

-- Why nothing was reserved, for programs: the code and its parameters, of which the reason is the text. Rows from before, and those of a process
-- of an earlier version, have none.
ALTER TABLE reservations
    ADD COLUMN reason_code       text NOT NULL DEFAULT '',
    ADD COLUMN reason_parameters jsonb NOT NULL DEFAULT 'null';

-- +goose Down
ALTER TABLE reservations DROP COLUMN reason_code, DROP COLUMN reason_parameters;
