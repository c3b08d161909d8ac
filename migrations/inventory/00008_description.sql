-- +goose Up

-- What a product is, for people. A process of an earlier version leaves it as it is.
ALTER TABLE products ADD COLUMN description text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE products DROP COLUMN description;
