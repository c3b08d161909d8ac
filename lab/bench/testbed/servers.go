package testbed

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/lab/bench/naive"
	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/system"
)

// Servers are what the services run on: Kafka, and a PostgreSQL server for all or one for each.
type Servers struct{ *rig.Servers }

func startServers(ctx context.Context, postgres, partitions int) (Servers, error) {
	topics, err := saga.Topics(partitions, system.Choreography()...)
	if err != nil {
		return Servers{}, err
	}
	for _, name := range naive.Topics() {
		topics = append(topics, broker.TopicSpec{Name: name, Partitions: partitions})
	}
	cfg := rig.Config{Topics: topics}
	for i := range postgres {
		name := "postgres"
		if postgres > 1 {
			name += "-" + strconv.Itoa(i+1)
		}
		cfg.Postgres = append(cfg.Postgres, rig.PostgresConfig{Name: name})
	}
	s, err := rig.Start(ctx, cfg)
	return Servers{s}, err
}

// drop drops the services' databases that have this prefix and suffix, and their roles.
func (s Servers) drop(ctx context.Context, prefix, suffix string) error {
	return s.Each(ctx, func(conn *pgx.Conn) error {
		for _, service := range workload.Services {
			name := pgx.Identifier{prefix + service + suffix}.Sanitize()
			for _, sql := range []string{`DROP DATABASE IF EXISTS ` + name + ` WITH (FORCE)`, `DROP ROLE IF EXISTS ` + name} {
				if _, err := conn.Exec(ctx, sql); err != nil {
					return fmt.Errorf("drop %s: %w", name, err)
				}
			}
		}
		return nil
	})
}

// of is the PostgreSQL server of a service.
func (s Servers) of(service string) *rig.Server {
	return s.Postgres[slices.Index(workload.Services[:], service)%len(s.Postgres)]
}

// Each runs fn with a superuser's connection to each server.
func (s Servers) Each(ctx context.Context, fn func(*pgx.Conn) error) error {
	for _, srv := range s.Postgres {
		if err := s.One(ctx, srv, fn); err != nil {
			return err
		}
	}
	return nil
}

// One runs fn with a superuser's connection to srv.
func (Servers) One(ctx context.Context, srv *rig.Server, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, srv.URL("postgres", "postgres"))
	if err == nil {
		err = fn(conn)
		_ = conn.Close(ctx) // every statement has been answered
	}
	if err != nil {
		return fmt.Errorf("look into %s: %w", srv.Name, err)
	}
	return nil
}
