-- +goose Up

-- What changed a product's units on the shelf: its stock is their sum. Rows are never changed. From the product's last count on, each row
-- follows the one before it: n is one more, and stock is that one's plus delta. There is no foreign key, so that a product's row that is
-- lost leaves its movements.
CREATE TABLE movements (
    product_id text COLLATE "C" NOT NULL,
    n          bigint NOT NULL CHECK (n > 0), -- counts the product's movements
    id         uuid NOT NULL UNIQUE,          -- what makes it safe to ask for it again
    kind       text NOT NULL CHECK (kind IN ('receipt', 'loss', 'count')),
    units      bigint NOT NULL CHECK (units >= 0), -- that came, that are gone, or that were counted
    delta      bigint NOT NULL,
    stock      bigint NOT NULL, -- after it
    note       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (product_id, n),
    CONSTRAINT movements_add_up CHECK (CASE kind WHEN 'receipt' THEN delta = units WHEN 'loss' THEN delta = -units ELSE stock = units END)
);

-- How many movements the product has: one that is lost is missed. A count can find fewer units than orders hold: then fewer than none are
-- available, and none are sold until enough have come.
ALTER TABLE products ADD COLUMN movements bigint NOT NULL DEFAULT 1, DROP CONSTRAINT products_available_check;

INSERT INTO movements (product_id, n, id, kind, units, delta, stock, note)
SELECT id, 1, uuidv7(), 'count', stock, stock, stock, 'what was there when movements began' FROM products;

-- Writes the movement that the statement which changed a product did not write: that of a new product, and that of a process of an earlier
-- version, which knows nothing of movements. It asks for what such a process always does with a stock: the next version, and the time. Who
-- changes a stock by hand does not, and is found by the audit. A stock that is brought to what the movements say is a recount's.
-- +goose StatementBegin
CREATE FUNCTION note_movement() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was     movements;
    number  bigint;
    changed bigint;
BEGIN
    SELECT * INTO was FROM movements WHERE product_id = NEW.id ORDER BY n DESC LIMIT 1;
    IF TG_OP = 'INSERT' THEN
        number := coalesce(was.n, 0) + 1;
        INSERT INTO movements (product_id, n, id, kind, units, delta, stock, note)
        VALUES (NEW.id, number, uuidv7(), 'count', NEW.stock, NEW.stock - coalesce(was.stock, 0), NEW.stock, 'created');
    ELSIF NEW.stock IS NOT DISTINCT FROM was.stock THEN
        RETURN NULL;
    ELSE
        number := greatest(NEW.movements, was.n) + 1;
        changed := NEW.stock - OLD.stock;
        INSERT INTO movements (product_id, n, id, kind, units, delta, stock, note)
        VALUES (NEW.id, number, uuidv7(), CASE WHEN changed > 0 THEN 'receipt' ELSE 'loss' END, abs(changed), changed, coalesce(was.stock, 0) + changed,
            'by a process of an earlier version');
    END IF;
    UPDATE products SET movements = number WHERE id = NEW.id AND movements <> number;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER products_created AFTER INSERT ON products FOR EACH ROW EXECUTE FUNCTION note_movement();

-- OF stock: what reserves and releases does not set it, and pays nothing for this.
CREATE TRIGGER products_moved AFTER UPDATE OF stock ON products FOR EACH ROW
WHEN (NEW.stock <> OLD.stock AND NEW.movements = OLD.movements AND NEW.version = OLD.version + 1 AND NEW.updated_at = now())
EXECUTE FUNCTION note_movement();

-- +goose Down
DROP TRIGGER products_moved ON products;
DROP TRIGGER products_created ON products;
DROP FUNCTION note_movement();
-- Not valid for what is short already, and held to be so from then on.
ALTER TABLE products DROP COLUMN movements, ADD CONSTRAINT products_available_check CHECK (available >= 0) NOT VALID;
DROP TABLE movements;
