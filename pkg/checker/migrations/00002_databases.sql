-- +goose Up

-- The database that each service answered from when it was first asked, or when somebody last accepted it: another one is not repaired by.
CREATE TABLE databases (
    service text PRIMARY KEY,
    id      uuid NOT NULL,
    epoch   bigint NOT NULL,
    copy    text NOT NULL,
    written bigint NOT NULL, -- the most that its server ever said it had written
    seen_at timestamptz NOT NULL
);

-- Findings that somebody knows of, and that alarm nobody until then.
CREATE TABLE acknowledgements (
    id      uuid PRIMARY KEY,
    kind    text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL, -- an order's id, or what else it was found at
    note    text NOT NULL,
    until   timestamptz NOT NULL,
    by_whom text NOT NULL,
    at      timestamptz NOT NULL,
    CONSTRAINT acknowledgements_of_finding UNIQUE (kind, subject)
);

-- +goose Down
DROP TABLE acknowledgements;
DROP TABLE databases;
