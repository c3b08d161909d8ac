package inventory

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// audited wants the audit to find just this.
func (b bundle) audited(want ...string) {
	b.Helper()
	all, err := facts.Audit(b.Context(), b.db, rules)
	if err != nil {
		b.Fatal(err)
	}
	var found []string
	for _, one := range all {
		found = append(found, one.Kind+" "+one.Subject+": "+one.Detail)
	}
	b.want(want, found)
}

// Whatever is damaged, in the product's row or in its movements: it is found; a recount restores the stock where the
// evidence shows it, and else touches nothing and leaves it to who counts; then all is well. Nobody's stock is worse
// than before the damage.
func TestDamagedStock(t *testing.T) {
	t.Parallel()
	const broken = "movements-broken"
	for name, tc := range map[string]struct {
		damage string
		found  string
		doubt  string // of the recount
	}{
		"a stock that nobody moved": {
			`UPDATE products SET stock = stock + 5, available = available + 5`, "stock 17 after 3 movements, movement 3 makes it 12", "",
		},
		"units that nobody lost": {
			`UPDATE products SET stock = stock - 5, available = available - 5`, "stock 7 after 3 movements, movement 3 makes it 12", "",
		},
		"less than is held": {
			`UPDATE products SET stock = 4, available = 0`, "stock 4 after 3 movements, movement 3 makes it 12", "",
		},
		"a number of movements": {`UPDATE products SET movements = 7`, "stock 12 after 7 movements, movement 3 makes it 12", ""},
		"the last movement is lost": {
			`DELETE FROM movements WHERE n = 3`, "stock 12 after 3 movements, movement 2 makes it 15", broken,
		},
		"one in between is lost": {
			`DELETE FROM movements WHERE n = 2`, "stock 12 after 3 movements, movement 3 makes it 7, and some before it are missing or changed", broken,
		},
		"the first movement is lost": {
			`DELETE FROM movements WHERE n = 1`, "stock 12 after 3 movements, movement 3 makes it 2, and some before it are missing or changed", broken,
		},
		"all are lost": {`DELETE FROM movements`, "stock 12, no movements", broken},
		"a movement is another": {
			`UPDATE movements SET units = 9, delta = 9 WHERE n = 2`, "stock 12 after 3 movements, movement 3 makes it 16, and some before it are missing or changed", broken,
		},
		"equal and opposite": {
			`UPDATE movements SET units = units + 1, delta = delta + CASE n WHEN 2 THEN 1 ELSE -1 END WHERE n > 1`,
			"stock 12 after 3 movements, movement 3 makes it 12, and some before it are missing or changed", broken,
		},
		"a movement is there twice": {
			`INSERT INTO movements SELECT product_id, 4, uuidv7(), kind, units, delta, stock, note FROM movements WHERE n = 2`,
			"stock 12 after 3 movements, movement 4 makes it 17, and some before it are missing or changed", broken,
		},
		"one that nobody asked for": {
			`INSERT INTO movements SELECT product_id, 4, uuidv7(), 'receipt', 5, 5, stock + 5, '' FROM movements WHERE n = 3`, "stock 12 after 3 movements, movement 4 makes it 17", broken,
		},
		"a count that nobody made": {
			`INSERT INTO movements SELECT product_id, 4, uuidv7(), 'count', 5, -7, 5, '' FROM movements WHERE n = 3`, "stock 12 after 3 movements, movement 4 makes it 5", broken,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Line{"tea", 10})
			api := b.api()
			b.move(api, "tea", movement(1, "receipt", 5), 201)
			b.move(api, "tea", movement(2, "loss", 3), 201)
			b.deliver(created(t, 1, Line{"tea", 4}))
			b.audited()

			b.exec(tc.damage)
			b.audited("stock-mismatch tea: " + tc.found)
			stock := b.stock()
			status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`)
			if tc.doubt == "" {
				if status != http.StatusOK {
					t.Errorf("recount: %d %v", status, body)
				}
			} else {
				if status != http.StatusConflict || body["type"] != web.TypePrefix+tc.doubt {
					t.Errorf("recount: %d %v, want %s", status, body, tc.doubt)
				}
				b.want(stock, b.stock())
				b.audited("stock-mismatch tea: " + tc.found)
				b.move(api, "tea", movement(3, "receipt", 2), 201)
				b.move(api, "tea", movement(4, "count", 12), 201)
			}
			b.want([]string{"tea: 8+4"}, b.stock())
			b.move(api, "tea", movement(5, "loss", 1), 201)
			b.want([]string{"tea: 7+4"}, b.stock())
			b.consistent()
		})
	}
}

// A product that is gone is found by its movements, and can be put again.
func TestProductRowIsGone(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	b.exec(`DELETE FROM products`)
	b.audited("stock-mismatch tea: the product is gone, its movements make 10")
	if status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusConflict || body["type"] != web.TypePrefix+"product-missing" {
		t.Errorf("recount: %d %v", status, body)
	}
	b.putTea(b.api(), `{"name": "tea", "price": 100, "currency": "EUR", "stock": 9}`, nil, "201")
	b.want([]string{"count 10 (+10): 10", "count 9 (-1): 9"}, b.moved("tea"))
	b.consistent()
}

// Reservations that hold more than there is are not believed where the product knows nothing of them.
func TestRecountOfMoreThanThereIs(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	b.deliver(created(t, 1, Line{"tea", 4}))
	b.exec(`UPDATE reservations SET items = '[{"productId":"tea","quantity":40}]'`)
	status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`)
	if status != http.StatusConflict || body["type"] != web.TypePrefix+"stock-below-reserved" {
		t.Errorf("%d %v", status, body)
	}
	b.want([]string{"tea: 6+4"}, b.stock())
}

// What processes of the version before movements do to products, by the statements that they have.
const (
	earlierPut = `INSERT INTO products AS p (id, name, price, currency, stock, available, reserved)
VALUES ($1, $2, $3, $4, $5, $5, 0)
ON CONFLICT (id) DO UPDATE SET name = $2, price = $3, currency = $4, stock = $5, available = $5 - p.reserved,
    version = p.version + 1, updated_at = now()
WHERE p.reserved <= $5
RETURNING id, name, price, currency, stock, available, reserved, version, created_at, updated_at, old.id IS NULL AS created`

	earlierRestock = `UPDATE products SET stock = stock + $2, available = available + $2, version = version + 1, updated_at = now()
WHERE id = $1 AND stock + $2 <= $3 RETURNING id, name, price, currency, stock, available, reserved, version, created_at, updated_at`

	earlierRecount = `UPDATE products SET reserved = $2, available = stock - $2, version = version + 1, updated_at = now()
WHERE id = $1 RETURNING id, name, price, currency, stock, available, reserved, version, created_at, updated_at`
)

// In a rolling upgrade, processes that know nothing of movements put and restock products on this schema. The movements
// are written for them; not for who changes a stock by hand.
func TestProcessesOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	api := b.api()
	put := func(price, stock int64) { b.exec(earlierPut, "tea", "tea", price, "EUR", stock) }
	put(100, 10)
	b.deliver(created(t, 1, Line{"tea", 4}))
	put(110, 10)
	b.exec(earlierRestock, "tea", 5, int64(maxUnits))
	b.move(api, "tea", movement(1, "receipt", 1), 201)
	put(110, 7)
	put(110, 3) // less than is reserved: it does nothing
	b.exec(earlierRecount, "tea", 4)
	b.want([]string{"count 10 (+10): 10", "receipt 5 (+5): 15", "receipt 1 (+1): 16", "loss 9 (-9): 7"}, b.moved("tea"))
	b.want([]string{"tea: 3+4"}, b.stock())
	b.consistent()

	// Fewer than none are available: they sell nothing, and what they release comes back.
	b.move(api, "tea", movement(2, "count", 2), 201)
	b.exec(moveUnitsSQL, []string{"tea"}, []int64{-1})
	b.exec(moveUnitsSQL, []string{"tea"}, []int64{1})
	b.want([]string{"tea: -2+4"}, b.stock())
	b.audited()

	// Damage stays damage under what they do on top of it.
	b.exec(`UPDATE products SET stock = stock + 100, available = available + 100`)
	b.audited("stock-mismatch tea: stock 102 after 5 movements, movement 5 makes it 2")
	b.exec(earlierRestock, "tea", 5, int64(maxUnits))
	b.audited("stock-mismatch tea: stock 107 after 6 movements, movement 6 makes it 7")
	if status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusOK || body["stock"] != 7.0 {
		t.Errorf("recount: %d %v", status, body)
	}
	b.want([]string{"tea: 3+4"}, b.stock())
	b.consistent()
}

// Stock that was there before movements has one that says so.
func TestStockFromBeforeMovements(t *testing.T) {
	t.Parallel()
	before := fstest.MapFS{}
	for _, name := range []string{"00001_inventory.sql", "00002_product_version.sql"} {
		data, err := fs.ReadFile(migrations.For("inventory"), name)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = &fstest.MapFile{Data: data}
	}
	db := pgtest.New(t, "inventory before movements", func(ctx context.Context, db *pgxpool.Pool) error {
		if err := sagatest.Migrate(pg.Migration{Name: "inventory", FS: before})(ctx, db); err != nil {
			return err
		}
		for n, id := range []string{"tea", "cup"} {
			if _, err := db.Exec(ctx, earlierPut, id, id, 100, "EUR", n*10); err != nil {
				return err
			}
		}
		return sagatest.Migrate(pg.Migration{Name: "inventory", FS: migrations.For("inventory")})(ctx, db)
	})
	b := bundle{t, db}
	b.want([]string{"count 0 (+0): 0"}, b.moved("tea"))
	b.want([]string{"count 10 (+10): 10"}, b.moved("cup"))
	b.move(b.api(), "tea", movement(1, "receipt", 5), 201)
	b.consistent()
}

// The stock rule names each of many products, and keeps to its limit.
func TestMovementsRuleOfMany(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO products (id, name, price, currency, stock, available, reserved) SELECT 'p-' || n, 'p', 1, 'EUR', n, n, 0 FROM generate_series(1, 50) AS n`)
	b.audited()
	b.exec(`UPDATE products SET stock = stock + 1, available = available + 1`)
	rows, err := b.db.Query(t.Context(), movementsRule.SQL, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got, want []string
	for rows.Next() {
		var id, detail string
		if err := rows.Scan(&id, &detail); err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	for _, n := range []int{1, 10, 11, 12, 13, 14, 15} {
		want = append(want, fmt.Sprintf("p-%d", n))
	}
	if diff := cmp.Diff(want, got); diff != "" || rows.Err() != nil {
		t.Errorf("(-want +got):\n%s%v", diff, rows.Err())
	}
}
