-- +goose Up

-- What became of the one attempt to charge an order: the stored outcome, which a repeated message returns.
CREATE TABLE payments (
    order_id   uuid PRIMARY KEY,
    id         uuid NOT NULL,
    user_id    text NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0), -- minor units
    currency   text NOT NULL,
    status     text NOT NULL CHECK (status IN ('COMPLETED', 'FAILED')),
    reason     text NOT NULL, -- why it failed
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payments_reason CHECK ((status = 'FAILED') = (reason <> ''))
);

-- +goose Down
DROP TABLE payments;
