package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/lab/bench/usual"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/system"
)

// serviceNames lists the services in the order in which an order meets them.
var serviceNames = [...]string{"order", "inventory", "payment"}

// servers are what the services run on: Kafka, and a PostgreSQL server for all or one for each.
type servers struct{ *rig.Servers }

func startServers(ctx context.Context, postgres, partitions int) (servers, error) {
	topics, err := saga.Topics(partitions, system.Choreography()...)
	if err != nil {
		return servers{}, err
	}
	for _, name := range usual.Topics() {
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
	return servers{s}, err
}

// drop drops the services' databases that have this prefix and suffix, and their roles.
func (s servers) drop(ctx context.Context, prefix, suffix string) error {
	return s.each(ctx, func(conn *pgx.Conn) error {
		for _, service := range serviceNames {
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
func (s servers) of(service string) *rig.Server {
	return s.Postgres[slices.Index(serviceNames[:], service)%len(s.Postgres)]
}
