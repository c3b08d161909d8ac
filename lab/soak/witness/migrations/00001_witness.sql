-- +goose Up

-- How many confirmed orders were counted, by the last digit of their ids. Nothing here recognises an order that is counted
-- twice.
CREATE TABLE tally (
    bucket text COLLATE "C" PRIMARY KEY,
    n      bigint NOT NULL
);
INSERT INTO tally SELECT to_hex(d), 0 FROM generate_series(0, 15) AS d;

CREATE TABLE counted (
    order_id uuid NOT NULL,
    n        bigint NOT NULL, -- the bucket's count with this order
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- +goose Down
DROP TABLE counted;
DROP TABLE tally;
