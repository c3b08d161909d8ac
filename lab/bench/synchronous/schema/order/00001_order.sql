-- +goose Up
CREATE TABLE orders (
    id         uuid PRIMARY KEY,
    user_id    text NOT NULL,
    items      jsonb NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0), -- minor units
    currency   text NOT NULL,
    status     text NOT NULL CHECK (status IN ('PENDING', 'CONFIRMED', 'CANCELLED')),
    reason     text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    CHECK ((status = 'PENDING') = (settled_at IS NULL))
);

-- What a reconciliation looks for: orders that nobody works on any more.
CREATE INDEX orders_pending ON orders (created_at) WHERE status = 'PENDING';
