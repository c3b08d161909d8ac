package facts

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Rule is something that must always hold within one database. SQL selects what breaks it: subject and detail, both
// text. It takes one parameter, how many rows to select at most, and is one statement, so that what is under way cannot
// look broken.
type Rule struct {
	Kind string // what is found, such as "stock-mismatch"
	SQL  string
}

// Breach is a row that breaks a rule.
type Breach struct {
	Kind    string `json:"kind"`
	Subject string `json:"subject" doc:"what it was found at"`
	Detail  string `json:"detail"`
}

// breaches bounds what one rule reports.
const breaches = 1000

// Audit holds the database to the rules and returns what breaks them.
func Audit(ctx context.Context, db *pgxpool.Pool, rules []Rule) (found []Breach, err error) {
	for _, rule := range rules {
		err := report(ctx, db, func(tx pgx.Tx) error {
			rows, _ := tx.Query(ctx, rule.SQL, breaches) // the error surfaces in the collector
			some, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b Breach, err error) {
				b.Kind = rule.Kind
				return b, row.Scan(&b.Subject, &b.Detail)
			})
			found = append(found, some...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look for %s: %w", rule.Kind, err)
		}
	}
	return found, nil
}
