-- +goose Up
CREATE TABLE things (generation bigint, key text, version bigint, PRIMARY KEY (generation, key));
