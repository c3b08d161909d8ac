-- +goose NO TRANSACTION
-- Each statement can be run again: the file is no transaction, because an index is built beside writers only outside one.

-- +goose Up
-- How far each consumer was in each partition when rows were last pruned: what is older than the rows and below it was
-- handled.
CREATE TABLE IF NOT EXISTS inbox_floor (
    consumer    text        NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    next_offset bigint      NOT NULL, -- the first that was not handled
    noted_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition)
);

-- Rows are pruned along the primary key, where the oldest UUIDv7 come first. Those ids that do not tell a time of the past
-- are found by age here; our own events never are in this index. See docs/adr/0015-dead-letters-and-the-past.md.
DROP INDEX IF EXISTS inbox_timeless;
CREATE INDEX CONCURRENTLY inbox_timeless ON inbox (seen_at)
    WHERE uuid_extract_version(id) IS DISTINCT FROM 7 OR id >= '03bb2cc3-d800-7000-8000-000000000000';

-- +goose Down
DROP INDEX IF EXISTS inbox_timeless;
DROP TABLE IF EXISTS inbox_floor;
