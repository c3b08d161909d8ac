package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// walk plants at random in a garden.
type walk struct {
	*spine
	*garden
	random *rand.Rand
	last   worth // what everybody has
}

// ground is a place to plant at: a table, and a column of it to change, or none.
type ground struct {
	db      *pgxpool.Pool
	service string
	table   string
	op      string // "delete", "copy" or "change"
	column  column

	keys, columns []column // of the table
}

type column struct{ name, typ string }

func names(columns []column) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		all[i] = c.name
	}
	return strings.Join(all, ", ")
}

// values are the columns of a row that was made from JSON, which tells no JSON null from an SQL NULL.
func values(columns []column) string {
	all := make([]string, len(columns))
	for i, c := range columns {
		if all[i] = c.name; c.typ == "jsonb" {
			all[i] = "coalesce(" + c.name + ", 'null')"
		}
	}
	return strings.Join(all, ", ")
}

// planting is what was planted.
type planting struct {
	ground
	before, after map[string]any // the row; nil: none
}

// what is the column, or what was done to the row.
func (g ground) what() string {
	if g.op == "change" {
		return g.column.name
	}
	return g.op
}

func (p *planting) String() string {
	if p.op == "change" {
		return fmt.Sprintf("%s.%s.%s: %v -> %v of %v", p.service, p.table, p.column.name, p.before[p.column.name], p.after[p.column.name], p.before)
	}
	return fmt.Sprintf("%s.%s %s: %v -> %v", p.service, p.table, p.op, p.before, p.after)
}

const (
	tablesSQL = `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1`

	// What the database computes or numbers by itself, nobody changes.
	columnsSQL = `SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position`

	keysSQL = `SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = $1::regclass AND i.indisprimary ORDER BY a.attnum`
)

// survey lists the grounds of the three databases.
func (w *walk) survey(t *testing.T) (all []ground) {
	t.Helper()
	for service, db := range map[string]*pgxpool.Pool{"order": w.garden.order, "inventory": w.garden.inventory, "payment": w.garden.payment} {
		rows, _ := db.Query(t.Context(), tablesSQL)
		tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		read := func(sql, table string) []column {
			rows, _ := db.Query(t.Context(), sql, table)
			columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c column, err error) { return c, row.Scan(&c.name, &c.typ) })
			if err != nil {
				t.Fatal(err)
			}
			return columns
		}
		for _, table := range tables {
			if machinery(table) {
				continue
			}
			g := ground{db: db, service: service, table: table, keys: read(keysSQL, table), columns: read(columnsSQL, table)}
			for _, op := range []string{"delete", "copy"} {
				g.op = op
				all = append(all, g)
			}
			g.op = "change"
			for _, g.column = range g.columns {
				all = append(all, g)
			}
		}
	}
	slices.SortFunc(all, func(a, b ground) int { return strings.Compare(a.service+a.table+a.what(), b.service+b.table+b.what()) }) // the map has no order
	w.last = w.worth(t)
	return all
}

// pick returns a row of the table; nil where it has none.
func (w *walk) pick(t *testing.T, g ground) (row map[string]any) {
	t.Helper()
	var n int
	if err := g.db.QueryRow(t.Context(), `SELECT count(*) FROM `+g.table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		return nil
	}
	return w.row(t, g, `SELECT to_jsonb(t)::text FROM `+g.table+` t ORDER BY `+names(g.keys)+` OFFSET $1 LIMIT 1`, w.random.IntN(n))
}

func (w *walk) row(t *testing.T, g ground, sql string, args ...any) (row map[string]any) {
	t.Helper()
	var text string
	err := g.db.QueryRow(t.Context(), sql, args...).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&row); err != nil {
		t.Fatal(err)
	}
	return row
}

// same is the condition that a row t has the key of the record $n.
func (g ground) same(n int) string {
	var all []string
	for _, k := range g.keys {
		all = append(all, fmt.Sprintf("t.%[1]s = (jsonb_populate_record(NULL::%[2]s, $%[3]d::text::jsonb)).%[1]s", k.name, g.table, n))
	}
	return strings.Join(all, " AND ")
}

// plant does to a row what the ground is for. ok is false where there is none, or where the database refuses it, which
// keeps it from happening.
func (w *walk) plant(t *testing.T, g ground) (p *planting, ok bool) {
	t.Helper()
	p = &planting{ground: g}
	p.before = w.pick(t, g)
	if p.before == nil {
		return nil, false
	}
	switch g.op {
	case "delete":
		ok = w.does(t, g, `DELETE FROM `+g.table+` t WHERE `+g.same(1), text(p.before))
	case "copy":
		p.after = maps.Clone(p.before)
		switch k := g.keys[len(g.keys)-1]; k.typ { // the rest may stay what it is
		case "uuid":
			p.after[k.name] = oldID().String()
		case "text":
			p.after[k.name] = unique("copy")
		default:
			p.after[k.name] = 1_000_000_000 + w.random.Int64N(1_000_000)
		}
		ok = w.does(t, g, g.insert(), text(p.after))
	default:
		for _, value := range shuffled(w.random, w.others(t, g, p.before[g.column.name])) {
			p.after = maps.Clone(p.before)
			p.after[g.column.name] = value
			if text(p.after) == text(p.before) {
				continue
			}
			if ok = w.does(t, g, fmt.Sprintf(`UPDATE %s t SET %s = (jsonb_populate_record(NULL::%s, $2::text::jsonb)).%s WHERE %s`, g.table, g.column.name, g.table, g.column.name, g.same(1)),
				text(p.before), text(p.after)); ok {
				break
			}
		}
	}
	return p, ok
}

// does executes a statement that is to change one row; false: the database refuses it, by a rule of the schema.
func (w *walk) does(t *testing.T, g ground, sql string, args ...any) bool {
	t.Helper()
	tag, err := g.db.Exec(t.Context(), sql, args...)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(e.Code, "23") || strings.HasPrefix(e.Code, "22") || e.Code == "428C9") {
		return false
	}
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("%s: %d rows, %v", sql, tag.RowsAffected(), err)
	}
	return true
}

func (g ground) insert() string {
	return fmt.Sprintf(`INSERT INTO %[1]s (%[2]s) OVERRIDING SYSTEM VALUE SELECT %[3]s FROM jsonb_populate_record(NULL::%[1]s, $1::text::jsonb)`,
		g.table, names(g.columns), values(g.columns))
}

func text(row map[string]any) string {
	b, err := json.Marshal(row)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// others are values of the column's type that are not the old one.
func (w *walk) others(t *testing.T, g ground, old any) (all []any) {
	t.Helper()
	neighbour := w.pick(t, g)[g.column.name]
	if neighbour != nil {
		all = append(all, neighbour)
	}
	switch typ := g.column.typ; typ {
	case "uuid":
		return append(all, oldID().String())
	case "text":
		value, _ := old.(string)
		return append(all, value+"x", "", g.other(t, value))
	case "bigint", "integer":
		n, _ := old.(json.Number)
		i, _ := n.Int64()
		return append(all, i+1, i-1, 2*i+3)
	case "boolean":
		return append(all, old != true)
	case "timestamp with time zone":
		return append(all, "2026-01-31T12:00:00Z", "2126-01-31T12:00:00Z")
	case "jsonb":
		return append(all, changed(old)...)
	default:
		t.Fatalf("%s.%s is a %s: teach the walk how to change one", g.table, g.column.name, typ)
		return nil
	}
}

// other is another of the words that a column knows, such as a status: constraints name them.
func (g ground) other(t *testing.T, old string) string {
	t.Helper()
	rows, _ := g.db.Query(t.Context(), `SELECT m[1] FROM pg_constraint c, regexp_matches(pg_get_constraintdef(c.oid), '''([A-Za-z]+)''::text', 'g') AS m
		WHERE conrelid = $1::regclass AND contype = 'c' AND pg_get_constraintdef(c.oid) ~ ('\m' || $2 || '\M') AND m[1] <> $3 ORDER BY 1`, g.table, g.column.name, old)
	words, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(words) == 0 {
		return old + "y"
	}
	return words[len(old)%len(words)]
}

// changed is JSON that was changed: what is first in a list lost, or another.
func changed(old any) []any {
	list, ok := old.([]any)
	if !ok || len(list) == 0 {
		return []any{map[string]any{}, []any{}}
	}
	all := []any{list[1:]}
	if first, ok := list[0].(map[string]any); ok {
		for name, value := range first {
			other := maps.Clone(first)
			switch v := value.(type) {
			case json.Number:
				i, _ := v.Int64()
				other[name] = i + 1
			case string:
				other[name] = v + "x"
			}
			all = append(all, append([]any{other}, list[1:]...))
		}
	}
	return all
}

// putBack is what a person does about it: the row is what it was.
func (w *walk) putBack(t *testing.T, p *planting) {
	t.Helper()
	if p.op == "copy" {
		w.exec(p.db, `DELETE FROM `+p.table+` t WHERE `+p.same(1), text(p.after))
		if p.table == "products" { // the schema has given it a movement
			w.exec(p.db, `DELETE FROM movements WHERE product_id = $1`, p.after["id"])
		}
		return
	}
	there := func(row map[string]any) bool {
		var yes bool
		if err := p.db.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM `+p.table+` t WHERE `+p.same(1)+`)`, text(row)).Scan(&yes); err != nil {
			t.Fatal(err)
		}
		return yes
	}
	moved := p.op == "change" && slices.ContainsFunc(p.keys, func(k column) bool { return k.name == p.column.name })
	switch {
	case moved && there(p.before): // the checker has put it back already
		w.exec(p.db, `DELETE FROM `+p.table+` t WHERE `+p.same(1), text(p.after))
	case p.op == "change" && there(p.after):
		w.exec(p.db, fmt.Sprintf(`UPDATE %[1]s t SET (%[2]s) = (SELECT %[4]s FROM jsonb_populate_record(NULL::%[1]s, $2::text::jsonb)) WHERE %[3]s`,
			p.table, names(p.settable(t)), p.same(1), values(p.settable(t))), text(p.after), text(p.before))
	case !there(p.before):
		w.exec(p.db, p.insert(), text(p.before))
	}
}

// settable are the columns that may be updated.
func (g ground) settable(t *testing.T) []column {
	t.Helper()
	rows, _ := g.db.Query(t.Context(), `SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1 AND is_identity = 'YES'`, g.table)
	fixed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(slices.Clone(g.columns), func(c column) bool { return slices.Contains(fixed, c.name) })
}
