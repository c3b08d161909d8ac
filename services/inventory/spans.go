package inventory

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
)

// auditor holds the stock to its rules by closed spans of reservations: see [facts.Spans], whose fields these are. A
// reservation can be released and reserved again, and what was is noted beside it then, under a number of its own: so a
// row less its changes is what it was when its span was closed.
//
// Movements need no spans. Those of one product come one after the other, under its lock, so up to which of them it was
// held to them is kept per product.
type auditor struct {
	db     *pgxpool.Pool
	reread time.Duration
	grace  time.Duration
	most   time.Duration
	small  int64
	width  int64
}

func newAuditor(db *pgxpool.Pool, reread time.Duration) *auditor {
	return &auditor{db: db, reread: reread, grace: facts.SpanGrace, most: facts.SpanMost, small: facts.SmallAudit, width: facts.SpanWidth}
}

// stockChanged is the kind of a closed span that is not what it was.
const stockChanged = "stock-changed"

// audit returns what breaks the rules: see [facts.Spans.Audit].
func (a *auditor) audit(ctx context.Context, full bool) ([]facts.Breach, error) {
	return a.spans().Audit(ctx, full)
}

func (a *auditor) spans() facts.Spans {
	return facts.Spans{
		DB: a.db, Rows: "reservations", Changed: stockChanged, Sequence: "reservations_n_seq", Size: auditSizeSQL, Digest: digestSpanSQL,
		Sum:    func(b *pgx.Batch, after, upto int64) { b.Queue(sumHeldSQL, after, upto) },
		Forget: func(b *pgx.Batch) { b.Queue(dropHeldSQL) },
		New:    a.unclosed, All: a.all,
		Reread: a.reread, Grace: a.grace, Most: a.most, Small: a.small, Width: a.width,
	}
}

// all holds everything to the rules.
func (a *auditor) all(ctx context.Context) ([]facts.Breach, error) {
	return facts.Audit(ctx, a.db, rules)
}

const (
	rowHash    = `substr(sha256(convert_to(concat_ws('|', n, order_id, status, items), 'UTF8')), 1, 8)::bigint`
	wasHash    = `substr(sha256(convert_to(concat_ws('|', reservation, order_id, status, items), 'UTF8')), 1, 8)::bigint`
	isHash     = `CASE WHEN new_status IS NULL THEN 0 ELSE substr(sha256(convert_to(concat_ws('|', reservation, new_order_id, new_status, new_items), 'UTF8')), 1, 8)::bigint END`
	changeHash = `substr(sha256(convert_to(jsonb_build_array(n, reservation, order_id, status, items, new_order_id, new_status, new_items)::text, 'UTF8')), 1, 8)::bigint`
)

// unclosed holds products to the units that orders hold, to the movements that have come, and those whose turn it is to
// all of their movements.
func (a *auditor) unclosed(ctx context.Context, _, _ int64) (found []facts.Breach, err error) {
	s := a.spans()
	err = s.AsOfOneMoment(ctx, func(tx pgx.Tx, after int64) error {
		found, err = facts.BreachesOf(ctx, tx, newHeldSQL, after, int64(math.MaxInt64), facts.MostBreaches)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("hold products to what orders hold of them: %w", err)
	}
	if len(found) > 0 { // or a closed reservation was changed past the triggers, and the product counted anew by it
		if err := s.Doubt(ctx); err != nil {
			return nil, err
		}
	}
	for _, step := range []func(context.Context) ([]facts.Breach, error){a.newMovements, a.walkProducts} {
		some, err := step(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}
