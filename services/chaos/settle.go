package chaos

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/converge-dev/converge/services/chaos/witness"
)

// standing is where everything is, in a few numbers that cost little to read. While they change, something moves.
type standing struct {
	pending, confirmed, reserved, counted int64
	outboxes                              [4]int64
}

func (s standing) settled() bool {
	return s.pending == 0 && s.reserved == s.confirmed && s.counted == s.confirmed && s.outboxes == [4]int64{}
}

func (s standing) String() string {
	return fmt.Sprintf("%d pending, %d confirmed, %d reserved, %d counted by the witness, outboxes %v", s.pending, s.confirmed, s.reserved, s.counted, s.outboxes)
}

// standing reads them. Every statement is answered from all rows, for which the checker's connections may plan as they like.
func (w *world) standing(ctx context.Context) (s standing, err error) {
	for _, q := range []struct {
		service, sql string
		to           []any
	}{
		{"order", `SELECT count(*) FILTER (WHERE status = 'PENDING'), count(*) FILTER (WHERE status = 'CONFIRMED') FROM orders`, []any{&s.pending, &s.confirmed}},
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

// settle waits until nothing is under way any more, or nothing has moved for as long as patience lasts, and returns when
// that was first so.
func (w *world) settle(ctx context.Context) (at time.Time, s standing, err error) {
	var before standing
	moved := time.Now()
	for ctx.Err() == nil {
		s, err = w.standing(ctx)
		switch {
		case err == nil && s.settled():
			return time.Now(), s, nil
		case err == nil && s != before:
			before, moved = s, time.Now()
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
	_, _, wrong := l.known()
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
