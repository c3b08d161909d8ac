-- +goose Up
-- What came of each request that was sent under a key, kept until expires_at.
CREATE TABLE idempotency (
    scope       text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    status      integer     NOT NULL,
    header      jsonb       NOT NULL,
    body        bytea,
    error_code  text,        -- with error: a lasting refusal
    error       text,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (scope, key),
    CHECK ((error_code IS NULL) = (error IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX idempotency_expires_at ON idempotency (expires_at);

-- +goose Down
DROP TABLE idempotency;
