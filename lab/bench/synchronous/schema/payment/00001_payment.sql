-- +goose Up

-- What became of an order's attempt to charge. REFUNDED with an amount of 0: the refund came first, and the charge is refused.
CREATE TABLE payments (
    order_id uuid PRIMARY KEY,
    id       uuid NOT NULL,
    user_id  text NOT NULL,
    amount   bigint NOT NULL CHECK (amount >= 0), -- minor units
    currency text NOT NULL,
    status   text NOT NULL CHECK (status IN ('COMPLETED', 'FAILED', 'REFUNDED')),
    reason   text NOT NULL
);
