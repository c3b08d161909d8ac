-- +goose NO TRANSACTION
-- Each statement can be run again: the file is no transaction, because an index is built beside writers only outside one.

-- +goose Up

-- An account is its owner's in one currency. Its id is the owner's; of a user's further account, in another currency than the first, it has a tab
-- and the currency behind it, which no user's id can have. A process that knows one account a user finds the first.
ALTER TABLE accounts
    DROP CONSTRAINT IF EXISTS accounts_id,
    ADD CONSTRAINT accounts_id CHECK (strpos(id, E'\t') = 0 OR id = split_part(id, E'\t', 1) || E'\t' || currency) NOT VALID;

ALTER TABLE accounts VALIDATE CONSTRAINT accounts_id;

DROP INDEX IF EXISTS accounts_of_owner;
CREATE UNIQUE INDEX CONCURRENTLY accounts_of_owner ON accounts (split_part(id, E'\t', 1), currency);

-- +goose Down
-- Whoever knows one account a user cannot reach further ones. What they hold stays where it is: their names say whose it is.
DROP INDEX IF EXISTS accounts_of_owner;
ALTER TABLE accounts DROP CONSTRAINT IF EXISTS accounts_id;
