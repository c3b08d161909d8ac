-- +goose Up

-- When each part of checks has looked last, so that a process that starts knows for how long nobody has.
CREATE TABLE looks (
    part text PRIMARY KEY,
    at   timestamptz NOT NULL -- when the check began
);

-- +goose Down
DROP TABLE looks;
