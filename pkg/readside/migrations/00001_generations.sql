-- +goose Up

-- Every row of a read side belongs to a generation. One of them serves. One may be built beside it, from the topics' beginning.
-- A row of a generation that is neither is rubbish, to be deleted.
CREATE TABLE generations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('SERVING', 'BUILDING', 'RETIRED', 'FAILED')),
    records     bigint NOT NULL DEFAULT 0, -- that were read to build it
    left_out    bigint NOT NULL DEFAULT 0, -- of these: that no code could handle
    error       text NOT NULL DEFAULT '',  -- why it failed
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE UNIQUE INDEX generations_one_of_each ON generations (state) WHERE state IN ('SERVING', 'BUILDING');
INSERT INTO generations (state, finished_at) VALUES ('SERVING', now());

-- +goose StatementBegin
CREATE FUNCTION serving_generation() RETURNS bigint STABLE LANGUAGE sql AS
$$ SELECT id FROM generations WHERE state = 'SERVING' $$;
-- +goose StatementEnd

-- The generations that a handler writes to: what comes from the topics as it happens (0) goes to the one that serves and to the
-- one that is being built; what is read again goes to the one that it is read for, as long as that is being built.
-- +goose StatementBegin
CREATE FUNCTION generations_of(target bigint) RETURNS SETOF bigint STABLE LANGUAGE sql AS
$$ SELECT id FROM generations WHERE state = 'BUILDING' AND target IN (0, id) OR state = 'SERVING' AND target = 0 $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION generations_of;
DROP FUNCTION serving_generation;
DROP TABLE generations;
