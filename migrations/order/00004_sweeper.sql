-- +goose Up

-- How far the sweeper of deadlines has walked, so that a process that starts goes on from there and does not look at all orders.
CREATE TABLE sweeps (
    walk text PRIMARY KEY,
    upto timestamptz NOT NULL -- orders that were placed before were looked at
);

-- +goose Down
DROP TABLE sweeps;
