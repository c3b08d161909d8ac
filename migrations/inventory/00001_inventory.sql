-- +goose Up

-- A product and where its units are. Every write moves units between the columns, so the three always add up.
-- The hot ones are updated once per batch: fillfactor leaves room on the page to do that without touching an index.
CREATE TABLE products (
    id         text COLLATE "C" PRIMARY KEY,
    name       text NOT NULL,
    price      bigint NOT NULL CHECK (price >= 0), -- minor units
    currency   text NOT NULL,
    stock      bigint NOT NULL, -- units put in
    available  bigint NOT NULL CHECK (available >= 0),
    reserved   bigint NOT NULL CHECK (reserved >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT products_add_up CHECK (available + reserved = stock)
) WITH (fillfactor = 70);

-- What became of an order's attempt to reserve: the stored outcome, which a repeated message returns.
-- RESERVED: its items are taken. REFUSED: nothing is, for the reason.
-- RELEASED: the items were given back; with a reason instead of items, the release came first and the reserve is refused.
CREATE TABLE reservations (
    order_id    uuid PRIMARY KEY,
    status      text NOT NULL CHECK (status IN ('RESERVED', 'RELEASED', 'REFUSED')),
    items       jsonb NOT NULL, -- [{"productId", "quantity"}], each product once
    reason      text NOT NULL,  -- why nothing was reserved; empty when something was
    created_at  timestamptz NOT NULL DEFAULT now(),
    released_at timestamptz,
    CONSTRAINT reservations_items_or_reason CHECK ((items = '[]') = (reason <> '')),
    CONSTRAINT reservations_released_at CHECK ((status = 'RELEASED') = (released_at IS NOT NULL))
);

-- +goose Down
DROP TABLE reservations;
DROP TABLE products;
