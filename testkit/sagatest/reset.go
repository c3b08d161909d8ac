package sagatest

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// initial makes a database again what it was. Deleting the few rows of a history costs a tenth of truncating the
// tables, but leaves dead rows behind, so now and then they are truncated all the same.
type initial struct {
	db       *pgxpool.Pool
	delete   string
	truncate string
	resets   int
}

// truncateEvery is after how many histories.
const truncateEvery = 100

// Generated columns are left out: they follow from the others.
const tablesSQL = `SELECT format('%I', c.relname), string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname NOT LIKE '%\_migrations'
GROUP BY c.relname ORDER BY c.relname`

// newInitial remembers what is in a database now.
func newInitial(ctx context.Context, db *pgxpool.Pool) (*initial, error) {
	type table struct{ Name, Columns string }
	rows, _ := db.Query(ctx, tablesSQL) // the error surfaces in the collector
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	if _, err := db.Exec(ctx, `CREATE SCHEMA initial`); err != nil {
		return nil, fmt.Errorf("remember the database: %w", err)
	}
	var names []string
	var empty, fill strings.Builder
	for _, t := range tables {
		var filled bool
		if _, err := db.Exec(ctx, fmt.Sprintf(`CREATE TABLE initial.%s AS SELECT %s FROM public.%[1]s`, t.Name, t.Columns)); err != nil {
			return nil, fmt.Errorf("remember %s: %w", t.Name, err)
		}
		if err := db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM initial.`+t.Name+`)`).Scan(&filled); err != nil {
			return nil, fmt.Errorf("remember %s: %w", t.Name, err)
		}
		names = append(names, t.Name)
		fmt.Fprintf(&empty, "DELETE FROM %s;", t.Name)
		if filled {
			fmt.Fprintf(&fill, "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %[2]s FROM initial.%[1]s;", t.Name, t.Columns)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the database has no tables: migrate it first")
	}
	const begin = "BEGIN; SET LOCAL session_replication_role = replica;" // no foreign keys, no triggers
	return &initial{
		db: db, delete: begin + empty.String() + fill.String() + "COMMIT",
		truncate: begin + "TRUNCATE " + strings.Join(names, ", ") + ";" + fill.String() + "COMMIT",
	}, nil
}

// reset is one round trip.
func (i *initial) reset(ctx context.Context) error {
	sql := i.delete
	if i.resets++; i.resets%truncateEvery == 0 {
		sql = i.truncate
	}
	if _, err := i.db.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("make the database what it was: %w", err)
	}
	return nil
}
