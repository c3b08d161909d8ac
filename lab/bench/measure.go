package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// parts are what CPU time is told of apart, in the order of the tables.
var parts = [...]string{"order", "inventory", "payment", "kafka", "postgres", "driver"}

// look is the state of everything that counts up, at one moment.
type look struct {
	at      time.Time
	cpu     map[string]float64 // seconds by part
	machine float64            // seconds of everything that runs on it
	metrics map[string]series  // by service
	work    Work
	trips   map[dbConn]uint32
}

// look reads all counters. With begin it also starts a new count of statements.
func (r *running) look(ctx context.Context, begin bool) (look, error) {
	l := look{metrics: map[string]series{}}
	if r.mode == Converge { // the others have no /metrics
		for _, service := range serviceNames {
			m, err := scrape(ctx, r.processes, service)
			if err != nil {
				return look{}, err
			}
			l.metrics[service] = m
		}
	}
	var err error
	if l.work, err = r.servers.work(ctx); err != nil {
		return look{}, err
	}
	if l.trips, err = r.servers.trips(ctx); err != nil {
		return look{}, err
	}
	if begin {
		if err := r.servers.resetStatements(ctx); err != nil {
			return look{}, err
		}
	}
	l.at = time.Now()
	if l.machine, err = rig.MachineCPU(); err != nil {
		return look{}, err
	}
	l.cpu, err = r.cpu(ctx)
	return l, err
}

// cpu is the CPU time of every part so far, in seconds.
func (r *running) cpu(ctx context.Context) (map[string]float64, error) {
	out := map[string]float64{"driver": rig.OwnCPU()}
	for _, p := range r.processes {
		seconds, err := rig.ProcessCPU(p.PID())
		if err != nil {
			return nil, fmt.Errorf("CPU time of %s: %w", p.Service, err)
		}
		out[p.Service] += seconds
	}
	var err error
	if out["kafka"], err = r.servers.CPU(ctx, r.servers.Kafka); err != nil {
		return nil, err
	}
	for _, srv := range r.servers.Postgres {
		seconds, err := r.servers.CPU(ctx, srv)
		if err != nil {
			return nil, err
		}
		out["postgres"] += seconds
	}
	return out, nil
}

// peakMemory is the most that one instance of each service has had resident since its start, in MiB.
func (r *running) peakMemory() (map[string]float64, error) {
	out := map[string]float64{}
	for _, p := range r.processes {
		mib, err := rig.PeakMiB(p.PID())
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", p.Service, err)
		}
		out[p.Service] = max(out[p.Service], mib)
	}
	return out, nil
}

// storedSQL measures what the order service stored: from when it took the order to when it settled it.
const storedSQL = `SELECT extract(epoch FROM settled_at - created_at)::float8 FROM orders
WHERE created_at BETWEEN $1 AND $2 AND settled_at IS NOT NULL`

// stored is the end-to-end latency of the orders of a window, as the order database has it.
func (r *running) stored(ctx context.Context, w window) (Quantiles, error) {
	rows, err := r.databases["order"].Query(ctx, storedSQL, w.from, w.to)
	if err != nil {
		return Quantiles{}, fmt.Errorf("read latencies: %w", err)
	}
	defer rows.Close()
	var all []time.Duration
	for rows.Next() {
		var seconds float64
		if err := rows.Scan(&seconds); err != nil {
			return Quantiles{}, fmt.Errorf("read latencies: %w", err)
		}
		all = append(all, time.Duration(seconds*float64(time.Second)))
	}
	return quantilesOf(all), rows.Err()
}

// difference fills in what was used between two looks, by orders.
func (r *Result) difference(before, after look) {
	r.CPU = map[string]float64{}
	r.Cores = map[string]float64{}
	seconds := after.at.Sub(before.at).Seconds()
	r.OtherCores = (after.machine - before.machine) / seconds
	for _, part := range parts {
		used := after.cpu[part] - before.cpu[part]
		r.Cores[part] = used / seconds
		r.OtherCores -= r.Cores[part]
		if r.Orders > 0 {
			r.CPU[part] = used / float64(r.Orders) * 1000
		}
	}
	r.Work = after.work.since(before.work)
	r.Work.RoundTrips = tripsSince(after.trips, before.trips)
	for _, service := range serviceNames {
		r.Batches = append(r.Batches, after.metrics[service].since(before.metrics[service]).batches(service)...)
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
