-- +goose Up
CREATE TABLE points (order_id text PRIMARY KEY, points int NOT NULL);

-- +goose Down
DROP TABLE points;
