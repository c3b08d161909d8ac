-- +goose Up
CREATE TABLE products (
    id        text COLLATE "C" PRIMARY KEY,
    name      text NOT NULL,
    price     bigint NOT NULL,
    currency  text NOT NULL,
    stock     bigint NOT NULL,
    available bigint NOT NULL CHECK (available >= 0),
    reserved  bigint NOT NULL CHECK (reserved >= 0),
    CHECK (available + reserved = stock)
) WITH (fillfactor = 70);

-- What became of an order's attempt to reserve. RELEASED without items: the release came first, and the reserve is refused.
CREATE TABLE reservations (
    order_id uuid PRIMARY KEY,
    status   text NOT NULL CHECK (status IN ('RESERVED', 'RELEASED', 'REFUSED')),
    items    jsonb NOT NULL,
    reason   text NOT NULL
);
