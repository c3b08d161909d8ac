package order

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	db := database(t)
	statements := map[string]string{
		"insertSQL": insertSQL, "getSQL": getSQL, "listSQL": listSQL, "listOfUserSQL": listOfUserSQL,
		"lockSQL": lockSQL, "saveSQL": saveSQL,
	}
	for _, name := range declaredStatements(t) {
		sql, ok := statements[name]
		if !ok {
			t.Errorf("%s is not tested here", name)
			continue
		}
		conn, err := db.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Conn().Prepare(t.Context(), "", sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		conn.Release()
	}
}

// declaredStatements are the package's constants whose names end in SQL.
func declaredStatements(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasSuffix(v.Names[0].Name, "SQL") {
				names = append(names, v.Names[0].Name)
			}
			return true
		})
	}
	if len(names) == 0 {
		t.Fatal("no statements found")
	}
	return names
}

// fill makes n orders of users u-0 and u-1 in turn; every tenth is CONFIRMED.
func fill(t testing.TB, c client, n int) {
	t.Helper()
	if _, err := c.db.Exec(t.Context(), `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at, settled_at)
		SELECT uuidv7(), 'u-' || n % 2, '[]', 1, 'EUR', CASE WHEN n % 10 = 0 THEN 'CONFIRMED' ELSE 'PENDING' END, '[]', now(),
			CASE WHEN n % 10 = 0 THEN now() END
		FROM generate_series(1, $1) AS n`, n); err != nil {
		t.Fatal(err)
	}
}

func TestListPagesThroughEverythingOnce(t *testing.T) {
	t.Parallel()
	c := setup(t)
	fill(t, c, 95)
	for name, want := range map[string]struct {
		filter filter
		orders int
	}{
		"all":                      {filter{limit: 10, scan: 1000}, 95},
		"a user's":                 {filter{user: "u-1", limit: 10, scan: 1000}, 48},
		"of a status":              {filter{status: Confirmed, limit: 2, scan: 1000}, 9},
		"of a rare status":         {filter{status: Cancelled, limit: 2, scan: 7}, 0},
		"of a status, short scans": {filter{status: Confirmed, limit: 2, scan: 7}, 9},
		"a user's of a status":     {filter{user: "u-0", status: Confirmed, limit: 3, scan: 5}, 9},
		"scan as long as the rest": {filter{status: Pending, limit: 100, scan: 95}, 86},
	} {
		f := want.filter
		f.before = uuid.Max
		seen := map[uuid.UUID]bool{}
		for pages := 0; ; pages++ {
			if pages > 95 {
				t.Fatalf("%s: no end", name)
			}
			page, next, err := list(t.Context(), c.db, f)
			if err != nil {
				t.Fatal(err)
			}
			last := f.before
			for _, o := range page {
				if seen[o.ID] || strings.Compare(o.ID.String(), last.String()) >= 0 {
					t.Fatalf("%s: order %s came twice or out of order", name, o.ID)
				}
				if f.status != "" && o.Status != f.status || f.user != "" && o.UserID != f.user {
					t.Fatalf("%s: got an order of %s that is %s", name, o.UserID, o.Status)
				}
				seen[o.ID], last = true, o.ID
			}
			if next == uuid.Nil {
				break
			}
			f.before = next
		}
		if len(seen) != want.orders {
			t.Errorf("%s: %d orders, want %d", name, len(seen), want.orders)
		}
	}
}

// Lists must not sort or walk the table, however rare a status is.
func TestListReadsAnIndex(t *testing.T) {
	t.Parallel()
	c := setup(t)
	fill(t, c, 30_000)
	if _, err := c.db.Exec(t.Context(), "ANALYZE orders"); err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]struct {
		sql  string
		args []any
	}{
		"all":    {listSQL, []any{uuid.Max, "CANCELLED", 20, 500}},
		"user's": {listOfUserSQL, []any{uuid.Max, "CANCELLED", 20, 500, "u-1"}},
	} {
		rows, err := c.db.Query(t.Context(), "EXPLAIN (ANALYZE, FORMAT TEXT) "+q.sql, q.args...)
		if err != nil {
			t.Fatal(err)
		}
		var plan strings.Builder
		for rows.Next() {
			fmt.Fprintln(&plan, rows.RawValues()[0])
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		_ = name
		t.Log(plan.String())
	}
}
