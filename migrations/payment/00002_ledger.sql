-- +goose Up

-- Money, in minor units. An account's balance is this column and the sum of its pending rows: a debit of an account that must
-- not go below zero locks its row and takes the pending ones in; every other movement only appends one. Whatever happens, all
-- entries of all accounts sum to zero.
CREATE TABLE accounts (
    id         text COLLATE "C" PRIMARY KEY,
    currency   text NOT NULL,
    balance    bigint NOT NULL DEFAULT 0,
    overdraft  boolean NOT NULL DEFAULT false, -- may go below zero: where money comes from
    frozen     boolean NOT NULL DEFAULT false, -- refuses debits
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT accounts_not_below_zero CHECK (overdraft OR balance >= 0)
) WITH (fillfactor = 70);

-- What was moved and is not in a balance yet, one row per account and transaction. Rows go as they are folded in, so the
-- table is short, and vacuumed by count.
CREATE TABLE pending (
    account_id text COLLATE "C" NOT NULL,
    n          bigint GENERATED ALWAYS AS IDENTITY,
    amount     bigint NOT NULL,
    PRIMARY KEY (account_id, n)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);

-- The postings: two for each transfer, which sum to zero. They are never changed.
CREATE TABLE entries (
    account_id   text COLLATE "C" NOT NULL,
    n            bigint GENERATED ALWAYS AS IDENTITY,
    transfer_id  uuid NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('opening', 'deposit', 'transfer', 'charge', 'refund')),
    amount       bigint NOT NULL CHECK (amount <> 0),
    counterparty text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, n)
);

-- What was asked for over HTTP and what came of it: the stored outcome, which the same id gets again.
CREATE TABLE transfers (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('deposit', 'transfer')),
    from_account text NOT NULL,
    to_account   text NOT NULL,
    amount       bigint NOT NULL CHECK (amount > 0),
    currency     text NOT NULL,
    refusal      text NOT NULL DEFAULT '', -- the problem's type; empty: the money was moved
    reason       text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- A payment can be paid back, and one that is asked to be undone before it was made is marked as failed, without a payer.
ALTER TABLE payments
    DROP CONSTRAINT payments_status_check,
    DROP CONSTRAINT payments_amount_check,
    ADD CONSTRAINT payments_status_check CHECK (status IN ('COMPLETED', 'FAILED', 'REFUNDED')),
    ADD CONSTRAINT payments_amount_check CHECK (amount > 0 OR (amount = 0 AND status = 'FAILED'));

-- The compensation of a payment. WAITING: it could not be done yet, and is tried again at next_try_at.
CREATE TABLE refunds (
    order_id    uuid PRIMARY KEY REFERENCES payments,
    id          uuid NOT NULL,
    state       text NOT NULL CHECK (state IN ('WAITING', 'DONE')),
    attempts    integer NOT NULL,
    last_error  text NOT NULL DEFAULT '', -- why the last attempt failed
    next_try_at timestamptz,
    cause       jsonb NOT NULL, -- the envelope of the message that asked for it, for the event that tells of its end
    created_at  timestamptz NOT NULL,
    done_at     timestamptz,
    CONSTRAINT refunds_next_try_at CHECK ((state = 'WAITING') = (next_try_at IS NOT NULL)),
    CONSTRAINT refunds_done_at CHECK ((state = 'DONE') = (done_at IS NOT NULL))
);
CREATE INDEX refunds_waiting ON refunds (next_try_at) WHERE state = 'WAITING';

-- Orders that were paid before there were accounts: their money came from outside, and is the merchant's.
INSERT INTO accounts (id, currency, balance, overdraft)
SELECT 'merchant.' || currency, currency, sum(amount), false FROM payments WHERE status = 'COMPLETED' GROUP BY currency
UNION ALL
SELECT 'external.' || currency, currency, -sum(amount), true FROM payments WHERE status = 'COMPLETED' GROUP BY currency;

INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty, created_at)
SELECT e.account, p.id, 'opening', e.amount, e.other, p.created_at
FROM payments p, LATERAL (VALUES
    ('external.' || p.currency, -p.amount, 'merchant.' || p.currency),
    ('merchant.' || p.currency, p.amount, 'external.' || p.currency)) AS e (account, amount, other)
WHERE p.status = 'COMPLETED' ORDER BY p.created_at, p.order_id;

-- +goose Down
DROP TABLE refunds, transfers, entries, pending, accounts;
DELETE FROM payments WHERE amount = 0;
UPDATE payments SET status = 'FAILED', reason = 'paid back' WHERE status = 'REFUNDED';
ALTER TABLE payments
    DROP CONSTRAINT payments_status_check,
    DROP CONSTRAINT payments_amount_check,
    ADD CONSTRAINT payments_status_check CHECK (status IN ('COMPLETED', 'FAILED')),
    ADD CONSTRAINT payments_amount_check CHECK (amount > 0);
