-- +goose Up

-- What was checked, and what came of it. Clean ones go after a while.
CREATE TABLE checks (
    id       uuid PRIMARY KEY, -- version 7: the order of ids is the order of time
    by_whom  text NOT NULL,
    repair   boolean NOT NULL,
    findings integer NOT NULL,
    report   jsonb NOT NULL
);

-- What was, or was about to be, repaired: written before it is tried, and completed after it. A row that is PLANNED was cut off in
-- between, and what became of it is to be looked up. They are kept.
CREATE TABLE repairs (
    n        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    check_id uuid NOT NULL,
    at       timestamptz NOT NULL,
    by_whom  text NOT NULL,
    order_id uuid,          -- of what is no order, NULL
    subject  text NOT NULL, -- of what is no order: product, account, transfer, topic
    kind     text NOT NULL, -- why
    detail   text NOT NULL,
    action   text NOT NULL,
    state    text NOT NULL CHECK (state IN ('PLANNED', 'DONE', 'REFUSED', 'FAILED')),
    outcome  text NOT NULL,
    before   jsonb,         -- what the services held of the order
    after    jsonb
);
CREATE INDEX repairs_order ON repairs (order_id, n);

-- +goose Down
DROP TABLE repairs;
DROP TABLE checks;
