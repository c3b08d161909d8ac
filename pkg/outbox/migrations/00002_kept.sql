-- +goose Up
-- What was published is kept for a while, in case Kafka loses what it had acknowledged. Two tables take turns and are emptied by
-- TRUNCATE; without an index a row costs its bytes and little more. They are logged: Kafka loses what it had acknowledged when the power
-- fails, and then the database starts from its log too.
CREATE TABLE outbox_kept_0 (
    id           bigint NOT NULL, -- in the outbox, under which it goes back
    topic        text   NOT NULL,
    partition    int    NOT NULL,
    kafka_offset bigint NOT NULL,
    key          bytea,
    value        bytea,
    headers      text   NOT NULL
) WITH (autovacuum_enabled = false);
CREATE TABLE outbox_kept_1 (LIKE outbox_kept_0 INCLUDING STORAGE) WITH (autovacuum_enabled = false);

-- Which of the two takes rows, and since when.
CREATE TABLE outbox_turn (
    turn  int         NOT NULL CHECK (turn IN (0, 1)),
    since timestamptz NOT NULL
);
INSERT INTO outbox_turn VALUES (0, now());

-- +goose Down
DROP TABLE outbox_turn, outbox_kept_1, outbox_kept_0;
