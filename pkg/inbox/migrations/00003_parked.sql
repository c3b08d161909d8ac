-- +goose Up
-- Messages that wait, in order per key, for an earlier one of their key: those for which a consumer has no room in memory.
CREATE TABLE inbox_parked (
    id        bigint      GENERATED ALWAYS AS IDENTITY,
    consumer  text        NOT NULL,
    topic     text        NOT NULL,
    partition integer     NOT NULL,
    "offset"  bigint      NOT NULL,
    lane      bytea       NOT NULL, -- what orders it: its key, or its place if it has none
    key       bytea,
    value     bytea,
    headers   bytea       NOT NULL, -- JSON: names and values, base64 each
    time      timestamptz NOT NULL,
    attempts  integer     NOT NULL, -- of its handler, failed
    last      boolean     NOT NULL, -- the next attempt is its last
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition, "offset", time) -- a topic that is made anew begins again with its offsets
);
CREATE UNIQUE INDEX inbox_parked_order ON inbox_parked (consumer, lane, id);

-- +goose Down
DROP TABLE inbox_parked;
