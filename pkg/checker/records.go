package checker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/facts"
)

// records keeps what was checked and what was repaired.
type records struct{ db *pgxpool.Pool }

const (
	storeCheckSQL = `INSERT INTO checks (id, by_whom, repair, findings, report) VALUES ($1, $2, $3, $4, $5)`

	latestCheckSQL = `SELECT id, by_whom, repair, report FROM checks ORDER BY id DESC LIMIT 1`

	planRepairSQL = `INSERT INTO repairs (check_id, at, by_whom, order_id, subject, kind, detail, action, state, outcome, before)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'PLANNED', '', $9) RETURNING n`

	endRepairSQL = `UPDATE repairs SET state = $2, outcome = $3, after = $4 WHERE n = $1`

	listRepairsSQL = `SELECT n, check_id, at, by_whom, coalesce(order_id, '00000000-0000-0000-0000-000000000000'::uuid), subject, kind, detail, action, state, outcome, before, after
FROM repairs WHERE n < $1 AND ($2::uuid = '00000000-0000-0000-0000-000000000000' OR order_id = $2) ORDER BY n DESC LIMIT $3`

	pruneChecksSQL = `DELETE FROM checks WHERE id < $1 AND findings = 0 AND id <> (SELECT id FROM checks ORDER BY id DESC LIMIT 1)`
)

func (r *records) store(ctx context.Context, record Record) error {
	report, err := json.Marshal(record.Report)
	if err == nil {
		var b pgx.Batch // which is one transaction
		b.Queue(storeCheckSQL, record.ID, record.By, record.Repair, len(record.Findings)+record.More, report)
		b.Queue(lookedSQL, record.saw(), record.At)
		err = r.db.SendBatch(ctx, &b).Close()
	}
	if err != nil {
		return fmt.Errorf("store check %s: %w", record.ID, err)
	}
	return nil
}

// latest returns the last check, if there was one.
func (r *records) latest(ctx context.Context) (record Record, ok bool, err error) {
	var report []byte
	err = r.db.QueryRow(ctx, latestCheckSQL).Scan(&record.ID, &record.By, &record.Repair, &report)
	if errors.Is(err, pgx.ErrNoRows) {
		return record, false, nil
	}
	if err == nil {
		err = json.Unmarshal(report, &record.Report)
	}
	if err != nil {
		return record, false, fmt.Errorf("read the last check: %w", err)
	}
	return record, true, nil
}

// journal writes down what a check is about to repair. The function that it returns completes that, also when ctx has
// ended by then: what was done was done.
func (r *records) journal(record Record) func(ctx context.Context, f Finding) (end func(Finding, any), err error) {
	return func(ctx context.Context, f Finding) (func(Finding, any), error) {
		before, err := marshalHeld(f.Repair.Before)
		if err != nil {
			return nil, err
		}
		var order *uuid.UUID
		if f.OrderID != uuid.Nil {
			order = &f.OrderID
		}
		var n int64
		err = r.db.QueryRow(ctx, planRepairSQL, record.ID, clock.Now(), record.By, order, f.Subject, string(f.Kind), f.Detail, f.Repair.Action, before).Scan(&n)
		if err != nil {
			return nil, fmt.Errorf("write down the repair of %s: %w", f, err)
		}
		return func(f Finding, after any) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			held, err := marshalHeld(after)
			if err == nil {
				// A row that stays PLANNED says that its end is not known, which is then true.
				_, _ = r.db.Exec(ctx, endRepairSQL, n, string(f.Repair.State), f.Repair.Detail, held)
			}
		}, nil
	}
}

// marshalHeld makes what is held JSON, and nothing NULL.
func marshalHeld(held any) ([]byte, error) {
	b, err := json.Marshal(held)
	if string(b) == "null" {
		return nil, err
	}
	return b, err
}

// Repaired is a repair as it is stored.
type Repaired struct {
	CheckID uuid.UUID       `json:"checkId"`
	At      time.Time       `json:"at"`
	By      string          `json:"by"`
	OrderID uuid.UUID       `json:"orderId,omitzero"`
	Subject string          `json:"subject,omitempty"`
	Kind    Kind            `json:"kind"`
	Detail  string          `json:"detail"`
	Action  string          `json:"action"`
	State   State           `json:"state" enum:"PLANNED,DONE,REFUSED,FAILED" doc:"PLANNED: it was cut off, and what became of it is not known here"`
	Outcome string          `json:"outcome,omitempty"`
	Before  json.RawMessage `json:"before,omitempty" doc:"what the services held of the order; of what is no order, see detail"`
	After   json.RawMessage `json:"after,omitempty" doc:"what they held then; of what is no order, what its service answered to the repair"`

	n int64
}

// repairs lists up to limit repairs, the newest first, that are older than one; of one order, or of all.
func (r *records) repairs(ctx context.Context, order uuid.UUID, before int64, limit int) ([]Repaired, error) {
	rows, _ := r.db.Query(ctx, listRepairsSQL, before, order, limit) // the error surfaces in the collector
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Repaired, err error) {
		err = row.Scan(&p.n, &p.CheckID, &p.At, &p.By, &p.OrderID, &p.Subject, &p.Kind, &p.Detail, &p.Action, &p.State, &p.Outcome, &p.Before, &p.After)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("list repairs: %w", err)
	}
	return all, nil
}

const (
	pruneEvery = time.Hour
	keepClean  = 7 * 24 * time.Hour // checks that found nothing
)

// prune forgets checks that found nothing, and acknowledgements whose time was over as long ago, until ctx ends, and
// then returns nil. A fault is made up for the next time.
func (r *records) prune(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		_, _ = r.db.Exec(ctx, pruneChecksSQL, facts.FirstOf(clock.Now().Add(-keepClean)))
		_, _ = r.db.Exec(ctx, pruneAcknowledgedSQL, clock.Now().Add(-keepClean))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
