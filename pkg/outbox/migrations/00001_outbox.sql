-- +goose Up
-- Rows live from the commit of what they tell until the broker has acknowledged them, so the table is a short queue that is
-- written and deleted all the time: vacuum by count, not by share of a size that is nearly zero.
CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic      text        NOT NULL,
    key        bytea,
    value      bytea,
    headers    text        NOT NULL, -- JSON: [[name, value], ...]
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);

-- +goose Down
DROP TABLE outbox;
