-- +goose Up
-- Events that are published later. A row lives from the commit that sets it until it is fired or cancelled. Rows are written and deleted
-- all the time while most of them may wait for long: vacuum by count where there are few, by share where there are many.
CREATE TABLE timers (
    service text        NOT NULL, -- whose timer it is
    topic   text        NOT NULL,
    key     bytea       NOT NULL,
    due_at  timestamptz NOT NULL,
    value   bytea,
    headers text        NOT NULL, -- JSON: [{"Key": name, "Value": base64}, ...]
    PRIMARY KEY (service, topic, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- The next one is the first of this index, however many wait.
CREATE INDEX timers_due ON timers (due_at);

-- +goose Down
DROP TABLE timers;
