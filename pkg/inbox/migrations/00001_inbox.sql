-- +goose Up
-- Which messages each consumer has handled. Ids are UUIDv7, or keep the time of one, so new rows go to the end of the
-- index and old ones leave from its beginning.
CREATE TABLE inbox (
    consumer text        NOT NULL,
    id       uuid        NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.5);

-- +goose Down
DROP TABLE inbox;
