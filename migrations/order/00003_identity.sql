-- +goose Up

-- Tells this database from every other, and from a copy of it that was restored: see pkg/facts. The epoch is raised when somebody says that it was.
CREATE TABLE database_identity (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    id    uuid NOT NULL DEFAULT gen_random_uuid(),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0)
);
INSERT INTO database_identity DEFAULT VALUES;

-- +goose Down
DROP TABLE database_identity;
