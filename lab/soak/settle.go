package soak

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/converge-dev/converge/lab/soak/witness"
)

// standing is where everything is, in a few numbers that cost little to read. While they change, something moves.
type standing struct {
	open                int64 // orders that still wait to hear something
	confirmed, reserved int64
	ever, counted       int64 // were CONFIRMED, though some were cancelled since
	outboxes            [4]int64
}

func (s standing) settled() bool {
	return s.open == 0 && s.reserved == s.confirmed && s.counted == s.ever && s.outboxes == [4]int64{}
}

func (s standing) String() string {
	return fmt.Sprintf("%d orders open, %d confirmed, %d reserved, %d were confirmed, %d counted by the witness, outboxes %v",
		s.open, s.confirmed, s.reserved, s.ever, s.counted, s.outboxes)
}

// An order that is cancelled has heard the end of it when its items were released and, where it was asked for, payment
// has answered.
const standingOfOrdersSQL = `SELECT
	count(*) FILTER (WHERE CASE status
		WHEN 'CONFIRMED' THEN false
		WHEN 'CANCELLED' THEN NOT (history @> '[{"event": "inventory.released"}]' AND (NOT history @> '[{"event": "order.cancel.requested"}]'
			OR history @> '[{"event": "payment.failed"}]' OR history @> '[{"event": "payment.refunded"}]'))
		ELSE true END),
	count(*) FILTER (WHERE status = 'CONFIRMED'),
	count(*) FILTER (WHERE CASE status WHEN 'CONFIRMED' THEN true WHEN 'PENDING' THEN false ELSE history @> '[{"status": "CONFIRMED"}]' END)
FROM orders`

// standing reads them. Every statement is answered from all rows, for which the checker's connections may plan as they
// like.
func (w *world) standing(ctx context.Context) (s standing, err error) {
	for _, q := range []struct {
		service, sql string
		to           []any
	}{
		{"order", standingOfOrdersSQL, []any{&s.open, &s.confirmed, &s.ever}},
		{"inventory", `SELECT count(*) FILTER (WHERE status = 'RESERVED') FROM reservations`, []any{&s.reserved}},
		{witness.Name, `SELECT coalesce(sum(n), 0)::bigint FROM tally`, []any{&s.counted}},
	} {
		if err := w.pools[q.service].QueryRow(ctx, q.sql).Scan(q.to...); err != nil {
			return s, fmt.Errorf("look where %s stands: %w", q.service, err)
		}
	}
	for i, service := range serviceNames() {
		if err := w.pools[service].QueryRow(ctx, `SELECT count(*) FROM outbox`).Scan(&s.outboxes[i]); err != nil {
			return s, fmt.Errorf("look where %s stands: %w", service, err)
		}
	}
	return s, nil
}

// still is how long nothing may move before it counts as settled: a message that changes nothing may be on its way.
const still = time.Second

// settle waits until nothing is under way any more, or nothing has moved for as long as patience lasts, and returns
// when that was first so.
func (w *world) settle(ctx context.Context) (at time.Time, s standing, err error) {
	var before standing
	moved := time.Now()
	for ctx.Err() == nil {
		s, err = w.standing(ctx)
		switch {
		case err == nil && s != before:
			before, moved = s, time.Now()
		case err == nil && s.settled() && time.Since(moved) > still:
			return moved, s, nil
		case time.Since(moved) > w.opts.Patience:
			return time.Now(), s, err
		}
		pause(ctx, 200*time.Millisecond)
	}
	return time.Now(), s, ctx.Err()
}

// broken is what no process may write.
var broken = regexp.MustCompile(`(?m)^(panic:|fatal error:|WARNING: DATA RACE).*|.*(handler panicked).*`)

// misbehaved tells what is wrong with the processes themselves.
func (w *world) misbehaved(l *load, episodes []Episode) ([]string, error) {
	_, _, _, wrong := l.known()
	if len(wrong) > 5 {
		wrong = append(wrong[:5], fmt.Sprintf("and %d more such answers", len(wrong)-5))
	}
	for _, e := range episodes {
		if e.Error != "" {
			wrong = append(wrong, fmt.Sprintf("%s on %s: %s", e.Fault, e.On, e.Error))
		}
	}
	files, err := w.logs()
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if at := broken.FindIndex(text); at != nil {
			wrong = append(wrong, fmt.Sprintf("%s holds\n%s", file, text[at[0]:min(len(text), at[0]+2000)]))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong = append(wrong, w.deaths...)
	for service, mib := range w.peaks {
		if mib > w.opts.Memory {
			wrong = append(wrong, fmt.Sprintf("%s took %.0f MiB, more than %.0f", service, mib, w.opts.Memory))
		}
	}
	slices.Sort(wrong)
	return wrong, nil
}
