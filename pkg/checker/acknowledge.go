package checker

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
)

// Acknowledgement says that somebody knows of a finding: it is shown with it, and alarms nobody until then. It changes
// nothing about its repair.
type Acknowledgement struct {
	ID      uuid.UUID `json:"id"`
	Kind    Kind      `json:"kind" example:"paid-wrong-amount"`
	Subject string    `json:"subject" doc:"the order's id, or what else it was found at"`
	Note    string    `json:"note"`
	Until   time.Time `json:"until"`
	By      string    `json:"by"`
	At      time.Time `json:"at" doc:"when it was given, or changed last"`
}

const (
	acknowledgeSQL = `INSERT INTO acknowledgements AS a (id, kind, subject, note, until, by_whom, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (kind, subject) DO UPDATE SET note = $4, until = $5, by_whom = $6,
    at = CASE WHEN (a.note, a.until, a.by_whom) = ($4, $5, $6) THEN a.at ELSE $7 END
RETURNING id, kind, subject, note, until, by_whom, at`

	acknowledgedSQL = `SELECT id, kind, subject, note, until, by_whom, at FROM acknowledgements ORDER BY kind, subject LIMIT $1`

	withdrawSQL = `DELETE FROM acknowledgements WHERE id = $1`

	pruneAcknowledgedSQL = `DELETE FROM acknowledgements WHERE until < $1`
)

// maxAcknowledged bounds what is listed, and looked at by a check.
const maxAcknowledged = 10_000

// acknowledge notes that somebody knows of a finding. There is one acknowledgement of a finding: a second one takes its
// place, and the same one again changes nothing.
func (r *records) acknowledge(ctx context.Context, a Acknowledgement) (Acknowledgement, error) {
	rows, _ := r.db.Query(ctx, acknowledgeSQL, clock.NewID(), string(a.Kind), a.Subject, a.Note, a.Until, a.By, clock.Now()) // the error surfaces in the collector
	a, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Acknowledgement])
	if err != nil {
		return a, fmt.Errorf("acknowledge %s at %s: %w", a.Kind, a.Subject, err)
	}
	return a, nil
}

// acknowledged lists what is acknowledged, also what is so no more for some days.
func (r *records) acknowledged(ctx context.Context) ([]Acknowledgement, error) {
	rows, _ := r.db.Query(ctx, acknowledgedSQL, maxAcknowledged) // the error surfaces in the collector
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Acknowledgement])
	if err != nil {
		return nil, fmt.Errorf("list what is acknowledged: %w", err)
	}
	return all, nil
}

// withdraw takes an acknowledgement back. It returns whether there was one.
func (r *records) withdraw(ctx context.Context, id uuid.UUID) (bool, error) {
	tag, err := r.db.Exec(ctx, withdrawSQL, id)
	if err != nil {
		return false, fmt.Errorf("withdraw the acknowledgement %s: %w", id, err)
	}
	return tag.RowsAffected() > 0, nil
}

// markAcknowledged says at each finding whether somebody knows of it.
func (k *check) markAcknowledged(ctx context.Context, found []Finding) error {
	if k.cfg.Acknowledged == nil || len(found) == 0 {
		return nil
	}
	all, err := k.cfg.Acknowledged(ctx)
	if err != nil {
		return err
	}
	type place struct {
		kind    Kind
		subject string
	}
	known := map[place]*Acknowledgement{}
	for i := range all {
		if a := &all[i]; a.Until.After(k.report.At) {
			known[place{a.Kind, a.Subject}] = a
		}
	}
	for i := range found {
		f := &found[i]
		f.Acknowledged = known[place{f.Kind, f.subject()}]
	}
	return nil
}
