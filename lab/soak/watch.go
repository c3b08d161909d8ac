package soak

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/pg"
)

// watcher is the system's own checker, which looks all the time while everything breaks: nothing that is on its way,
// away or behind may look wrong to it. It has no faults of its own, but those of the broker and of a database server
// that it shares.
const watcher = "checker"

// graceOfWatcher is as long as a transaction may take, where the run is long enough for that.
func (o *Options) graceOfWatcher() time.Duration { return o.long(30 * time.Second) }

// startWatcher starts it when the services run.
func (w *world) startWatcher(ctx context.Context, bins string) error {
	url, err := w.servers.CreateDatabase(ctx, w.dbs[witness.Name], watcher)
	if err != nil {
		return err
	}
	if w.watching, err = pg.Open(ctx, url, pg.ApplicationName("soak"), pg.MaxConns(2)); err != nil {
		return err
	}
	launch := w.launch
	launch.Services, launch.Databases = []string{watcher}, map[string]string{watcher: url}
	launch.Command = func(string) []string { return []string{filepath.Join(bins, watcher)} }
	env := []string{"KAFKA_SESSION_TIMEOUT=" + sessionTimeout.String(), "CHECK_EVERY=1s", "CHECK_ALL_EVERY=10s", "CHECK_GRACE=" + w.opts.graceOfWatcher().String()}
	for _, service := range []string{"order", "inventory", "payment"} {
		env = append(env, strings.ToUpper(service)+"_URL=http://"+w.running[service].Addr)
	}
	launch.Env = map[string][]string{watcher: env}
	processes, err := launch.Start(ctx)
	for _, p := range processes {
		w.running[watcher] = w.adopt(p)
	}
	return err
}

// sighting is something that the watcher found, at a check that began so.
type sighting struct {
	at      time.Time
	finding string
}

// What it finds of dead letters is right: poison is put there.
const sightingsSQL = `SELECT (report ->> 'at')::timestamptz, f::text FROM checks, jsonb_array_elements(report -> 'findings') AS f WHERE f ->> 'kind' <> 'dead-letters'`

func readSightings(ctx context.Context, db *pgxpool.Pool) (seen []sighting, checks int, err error) {
	rows, _ := db.Query(ctx, sightingsSQL) // the error surfaces in the collector
	seen, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s sighting, err error) { return s, row.Scan(&s.at, &s.finding) })
	if err == nil {
		err = db.QueryRow(ctx, `SELECT count(*) FROM checks`).Scan(&checks)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read what the checker found: %w", err)
	}
	return seen, checks, nil
}

// excused are what the watcher may say: anything while clocks were an hour apart, since it goes by them, with a grace
// that is shorter; and that events wait to be published where a broker was away, for as long afterwards as settling may
// take.
func excused(episodes []Episode, settle time.Duration) func(sighting) bool {
	return func(s sighting) bool {
		for _, e := range episodes {
			late := s.at.Sub(e.End)
			switch {
			case !s.at.After(e.Start):
			case e.Fault == "clock" && late < time.Minute:
				return true
			case strings.HasPrefix(e.On, "kafka") && late < settle && strings.Contains(s.finding, string(checker.OutboxStuck)):
				return true
			}
		}
		return false
	}
}

// checkWatcher demands that the watcher has looked, and has never cried wolf.
func (f *facts) checkWatcher(v *verdict) {
	v.that(f.checks > 0, "the system's checker has checked nothing", "no check is on record")
	v.that(f.blind == "", "the system's checker finds something where nothing is wrong, or cannot look", "%s", f.blind)
	for _, s := range f.sightings {
		v.that(f.excused(s), "the system's checker has cried wolf", "%s: %s", s.at.Format(time.TimeOnly), s.finding)
	}
}

// lastLook waits until a check of everything, which ends with nothing on its way, has found nothing.
func (w *world) lastLook(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.opts.graceOfWatcher()+w.opts.Patience)
	defer cancel()
	ripe := time.Now().Add(w.opts.graceOfWatcher()) // by then it judges the last orders, too
	for {
		var said string
		err := w.watching.QueryRow(ctx, `SELECT coalesce((SELECT report::text FROM checks WHERE report ->> 'since' IS NULL ORDER BY id DESC LIMIT 1), 'nothing yet')`).Scan(&said)
		if err == nil {
			var clean bool
			err = w.watching.QueryRow(ctx, lastLookSQL, ripe).Scan(&clean)
			if err == nil && clean {
				return nil
			}
		}
		if pause(ctx, 500*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("the system's checker does not see that all is settled: %s", said)
		}
	}
}

// A look at everything, since then.
const lastLookSQL = `SELECT EXISTS (SELECT FROM checks WHERE report ->> 'since' IS NULL AND (report ->> 'at')::timestamptz > $1
	AND (report ->> 'inFlight')::bigint = 0 AND report -> 'failed' IS NULL AND NOT EXISTS (SELECT FROM jsonb_array_elements(report -> 'findings') AS f WHERE f ->> 'kind' <> 'dead-letters'))`
