-- +goose Up

-- What is known of an order, a column for each fact, set by the event that tells it, in whatever order these come. Times are those
-- of the events. An order whose order.created has not come has no created_at, and is in no report until it comes.
CREATE TABLE orders (
    generation   bigint NOT NULL,
    order_id     uuid NOT NULL,
    user_id      text,
    amount       bigint, -- minor units
    currency     text,
    created_at   timestamptz,
    confirmed_at timestamptz,
    cancelled_at timestamptz,
    paid_at      timestamptz,
    refused_at   timestamptz, -- by inventory or by payment
    refused_by   text,
    refusal      text,        -- its kind, without what is different in every order
    PRIMARY KEY (generation, order_id)
) WITH (fillfactor = 80);
CREATE INDEX orders_created ON orders (generation, created_at);

-- A row for each version of each profile.
CREATE TABLE profile_updates (
    generation bigint NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (generation, user_id, version)
);
CREATE INDEX profile_updates_at ON profile_updates (generation, updated_at);

-- +goose Down
DROP TABLE profile_updates;
DROP TABLE orders;
