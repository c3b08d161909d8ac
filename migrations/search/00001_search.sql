-- +goose Up

-- Comes with PostgreSQL, and may be created by the owner of a database.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- What can be found: a user or a product in the newest version that has come, once per generation (see pkg/readside).
-- folded is what is searched, as search.go folds it. words is its full text; pg_trgm finds what is misspelt in it; grams are
-- its letters beyond ASCII, alone and in pairs, for scripts that put no space between words and that pg_trgm, in a database of
-- the locale C, takes for punctuation.
CREATE TABLE documents (
    generation bigint NOT NULL,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('user', 'product')),
    id         text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    title      text NOT NULL,
    detail     text NOT NULL, -- what else is shown; empty: nothing
    price      bigint,        -- of a product, minor units
    currency   text,
    stock      text,
    folded     text NOT NULL,
    words      tsvector GENERATED ALWAYS AS (to_tsvector('simple', folded)) STORED,
    grams      text[] NOT NULL,
    PRIMARY KEY (generation, kind, id)
);
CREATE INDEX documents_words ON documents USING gin (words);
CREATE INDEX documents_folded ON documents USING gin (folded gin_trgm_ops);
CREATE INDEX documents_grams ON documents USING gin (grams);

-- +goose Down
DROP TABLE documents;
