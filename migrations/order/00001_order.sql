-- +goose Up
CREATE TABLE orders (
    id         uuid PRIMARY KEY, -- version 7: the order of ids is the order of time
    user_id    text NOT NULL,
    items      jsonb NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0), -- minor units
    currency   text NOT NULL CHECK (length(currency) = 3),
    status     text NOT NULL CHECK (status IN ('PENDING', 'CONFIRMED', 'CANCELLED')),
    reason     text NOT NULL DEFAULT '',
    history    jsonb NOT NULL, -- [{at, status, event, detail}], oldest first
    created_at timestamptz NOT NULL,
    settled_at timestamptz,
    CHECK ((status = 'PENDING') = (settled_at IS NULL))
) WITH (fillfactor = 40); -- a settled order is longer: with this room it stays on its page, and no index is touched (HOT)

-- What an update changes must stay out of every index, or it is not HOT.
CREATE INDEX orders_user_id_id ON orders (user_id, id);

-- +goose Down
DROP TABLE orders;
