// Package measure reads what a load costs, from outside: metrics, CPU time, statements, round trips, memory and
// profiles. It costs the services next to nothing.
package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
)

// Parts are what CPU time is told of apart, in the order of the tables.
var Parts = [...]string{"order", "inventory", "payment", "kafka", "postgres", "driver"}

// Look is the state of everything that counts up, at one moment.
type Look struct {
	at      time.Time
	cpu     map[string]float64 // seconds by part
	machine float64            // seconds of everything that runs on it
	metrics map[string]series  // by service
	work    Work
	trips   map[dbConn]uint32
}

// Look reads all counters. With begin it also starts a new count of statements.
func (s *System) Look(ctx context.Context, begin bool) (Look, error) {
	l := Look{metrics: map[string]series{}}
	if s.Metrics {
		for _, service := range workload.Services {
			m, err := scrape(ctx, s.Processes, service)
			if err != nil {
				return Look{}, err
			}
			l.metrics[service] = m
		}
	}
	var err error
	if l.work, err = workOf(ctx, s.Servers); err != nil {
		return Look{}, err
	}
	if l.trips, err = trips(ctx, s.Servers); err != nil {
		return Look{}, err
	}
	if begin {
		if err := resetStatements(ctx, s.Servers); err != nil {
			return Look{}, err
		}
	}
	l.at = time.Now()
	if l.machine, err = rig.MachineCPU(); err != nil {
		return Look{}, err
	}
	l.cpu, err = s.cpu(ctx)
	return l, err
}

// cpu is the CPU time of every part so far, in seconds.
func (s *System) cpu(ctx context.Context) (map[string]float64, error) {
	out := map[string]float64{"driver": rig.OwnCPU()}
	for _, p := range s.Processes {
		seconds, err := rig.ProcessCPU(p.PID())
		if err != nil {
			return nil, fmt.Errorf("CPU time of %s: %w", p.Service, err)
		}
		out[p.Service] += seconds
	}
	var err error
	if out["kafka"], err = s.Servers.CPU(ctx, s.Servers.Kafka); err != nil {
		return nil, err
	}
	for _, srv := range s.Servers.Postgres {
		seconds, err := s.Servers.CPU(ctx, srv)
		if err != nil {
			return nil, err
		}
		out["postgres"] += seconds
	}
	return out, nil
}

// Usage is what was used between two looks.
type Usage struct {
	CPU        map[string]float64 // seconds per 1,000 orders, by part
	Cores      map[string]float64 // CPU time per time, by part
	OtherCores float64            // of what has nothing to do with the run
	Work       Work
	Batches    []Batch
}

// Since tells what was used after an earlier look, by a number of orders.
func (l Look) Since(before Look, orders int) Usage {
	u := Usage{CPU: map[string]float64{}, Cores: map[string]float64{}}
	seconds := l.at.Sub(before.at).Seconds()
	u.OtherCores = (l.machine - before.machine) / seconds
	for _, part := range Parts {
		used := l.cpu[part] - before.cpu[part]
		u.Cores[part] = used / seconds
		u.OtherCores -= u.Cores[part]
		if orders > 0 {
			u.CPU[part] = used / float64(orders) * 1000
		}
	}
	u.Work = l.work.since(before.work)
	u.Work.RoundTrips = tripsSince(l.trips, before.trips)
	for _, service := range workload.Services {
		u.Batches = append(u.Batches, l.metrics[service].since(before.metrics[service]).batches(service)...)
	}
	return u
}
