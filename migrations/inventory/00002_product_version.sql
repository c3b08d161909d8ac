-- +goose Up

-- Counts what was told of the product: each product.updated carries the next version. Those that are there already are told
-- of with their next change.
ALTER TABLE products ADD COLUMN version bigint NOT NULL DEFAULT 1 CHECK (version > 0);

-- +goose Down
ALTER TABLE products DROP COLUMN version;
