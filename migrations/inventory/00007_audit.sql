-- +goose Up

-- Reservations are numbered in the order in which they come, so that spans of them can be closed. The index is a btree, and not a small one by pages as
-- the ledger's: what is released leaves room on old pages, and new rows come there.
ALTER TABLE reservations ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY;
CREATE INDEX reservations_n ON reservations (n);

-- What has become of a reservation since it came: what was, and what is instead. Numbered with the reservations, and never changed. Who changes a row by
-- hand is in it, too: the units that the audit counts are always those of the rows. What a reservation was at first is the row less its changes.
CREATE TABLE audit_changes (
    n            bigint PRIMARY KEY DEFAULT nextval('reservations_n_seq'),
    reservation  bigint NOT NULL, -- its number
    order_id     uuid NOT NULL,   -- what was
    status       text NOT NULL,
    items        jsonb NOT NULL,
    new_order_id uuid,            -- what is; nothing: the row was deleted
    new_status   text,
    new_items    jsonb,
    at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_changes_of ON audit_changes (reservation);

-- A trigger, so that a process of an earlier version, which knows nothing of it, notes what it changes. An insert, which every order makes, has none.
-- +goose StatementBegin
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_changes (reservation, order_id, status, items, new_order_id, new_status, new_items)
    VALUES (OLD.n, OLD.order_id, OLD.status, OLD.items, NEW.order_id, NEW.status, NEW.items);
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER reservations_changed AFTER UPDATE ON reservations FOR EACH ROW
WHEN ((OLD.order_id, OLD.status, OLD.items) IS DISTINCT FROM (NEW.order_id, NEW.status, NEW.items)) EXECUTE FUNCTION note_change();

CREATE TRIGGER reservations_deleted AFTER DELETE ON reservations FOR EACH ROW EXECUTE FUNCTION note_change();

-- How far the audit of the stock is. There is one row.
CREATE TABLE audit_horizon (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    n         bigint NOT NULL,      -- what was numbered by then has a number of no more than this,
    xid       xid8 NOT NULL,        -- and belongs to transactions before this one
    at        timestamptz NOT NULL,
    settled   bigint NOT NULL DEFAULT 0, -- nothing comes any more with a number of no more than this
    closed    bigint NOT NULL DEFAULT 0, -- spans that are closed
    summed    bigint NOT NULL DEFAULT 0, -- the first of them, which audit_held sums up
    product   text COLLATE "C" NOT NULL DEFAULT '', -- products are held to all their movements again, in the order of their ids: up to here
    walked_at timestamptz NOT NULL DEFAULT now()
);

-- Closed spans of reservations and their changes, so many numbers each, and what was in them.
CREATE TABLE audit_spans (
    span       bigint PRIMARY KEY,
    entries    bigint NOT NULL,
    digest     bigint NOT NULL, -- when it was closed
    seen       bigint NOT NULL, -- when it was read last
    read_at    timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz,     -- when it was first seen to be another
    suspect    boolean NOT NULL DEFAULT false -- what is kept of it may not be what is there: it is read again before its turn
);

-- The units that orders hold by the first closed spans, per product.
CREATE TABLE audit_held (
    product_id text COLLATE "C" PRIMARY KEY,
    units      numeric NOT NULL
);

-- Up to which of its movements a product was held to them, and the stock that they made: those that come follow that one.
CREATE TABLE audit_movements (
    product_id text COLLATE "C" PRIMARY KEY,
    n          bigint NOT NULL,
    stock      bigint NOT NULL
);

-- +goose Down
DROP TABLE audit_movements, audit_held, audit_spans, audit_horizon;
DROP TRIGGER reservations_deleted ON reservations;
DROP TRIGGER reservations_changed ON reservations;
DROP FUNCTION note_change();
DROP TABLE audit_changes;
DROP INDEX reservations_n;
ALTER TABLE reservations DROP COLUMN n;
