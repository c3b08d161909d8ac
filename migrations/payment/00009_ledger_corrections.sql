-- +goose Up

-- What a person corrected in the ledger, and why. Entries are never changed: a correction adds some, by another transfer or to one that lacks its other
-- side. The id is asked for first, so that a correction is posted once.
CREATE TABLE corrections (
    id          uuid PRIMARY KEY,
    n           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    transfer_id uuid NOT NULL, -- of the entries that it added: its own, or that of the transfer that it completes
    kind        text NOT NULL, -- of those entries
    debit       text NOT NULL, -- whose account; empty: none
    credit      text NOT NULL,
    amount      bigint NOT NULL CHECK (amount > 0),
    currency    text NOT NULL,
    order_id    uuid,
    note        text NOT NULL,
    asked_by    text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT corrections_sides CHECK (debit <> '' AND credit <> '' OR (debit <> '') <> (credit <> '') AND transfer_id <> id)
);

-- The system's own account for what nobody knows yet may be below zero, whoever had its name before.
UPDATE accounts SET overdraft = true WHERE id >= 'suspense.' AND id < 'suspense/' AND length(id) = length('suspense.EUR') AND NOT overdraft;

-- +goose Down
DROP TABLE corrections;
