-- +goose NO TRANSACTION
-- +goose Up

-- Entries are found by their numbers, which grow as the table does: an index of a few pages, which costs an insert nothing. Each statement can be run again.
CREATE INDEX IF NOT EXISTS entries_n ON entries USING brin (n) WITH (autosummarize = on);

-- How far the audit of the ledger is. There is one row.
CREATE TABLE IF NOT EXISTS audit_horizon (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    n         bigint NOT NULL,      -- entries that were numbered by then have a number of no more than this,
    xid       xid8 NOT NULL,        -- and belong to transactions before this one
    at        timestamptz NOT NULL,
    settled   bigint NOT NULL DEFAULT 0, -- no entry comes any more with a number of no more than this
    closed    bigint NOT NULL DEFAULT 0, -- spans that are closed
    summed    bigint NOT NULL DEFAULT 0, -- the first of them, which audit_accounts and audit_transfers sum up
    payment   uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000', -- payments are held against the ledger again, in the order of their orders: up to here
    walked_at timestamptz NOT NULL DEFAULT now()
);

-- Closed spans of entries, so many numbers each, and what was in them.
CREATE TABLE IF NOT EXISTS audit_spans (
    span       bigint PRIMARY KEY,
    entries    bigint NOT NULL,
    digest     bigint NOT NULL, -- when it was closed
    seen       bigint NOT NULL, -- when it was read last
    read_at    timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz,     -- when it was first seen to be another
    suspect    boolean NOT NULL DEFAULT true -- it was not held to the rules yet, or something in it breaks one
);

-- The sum of the first closed spans' entries, per account, and of transfers that do not sum to zero by then.
CREATE TABLE IF NOT EXISTS audit_accounts (
    account_id text COLLATE "C" PRIMARY KEY,
    amount     bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS audit_transfers (
    transfer_id uuid PRIMARY KEY,
    amount      bigint NOT NULL
);

-- +goose Down
DROP TABLE audit_transfers, audit_accounts, audit_spans, audit_horizon;
DROP INDEX entries_n;
