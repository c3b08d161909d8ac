package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/bench/usual"
	"github.com/converge-dev/converge/services/system"
)

const (
	kafkaImage    = "apache/kafka:4.3.1"
	postgresImage = "postgres:18"
	password      = "converge"

	// label marks the bench's containers; its value is the machine's name and the process's id.
	label = "dev.converge.bench"
)

// servers are what the services run on.
type servers struct {
	docker *client.Client
	kafka  *server
	pg     []*server // one for all services, or one for each
}

// startServers starts Kafka and one or more PostgreSQL servers. What was started has to be removed even after an error.
func startServers(ctx context.Context, postgres int) (*servers, error) {
	log.SetDefault(silent{})
	// testcontainers' own clean-up is a container of one more image; the bench removes what it started, and what an
	// earlier one that was killed left.
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return nil, err
	}
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach Docker: %w", err)
	}
	s := &servers{docker: docker.Client}
	if err := removeLeftovers(ctx, s.docker); err != nil {
		return s, fmt.Errorf("remove what an earlier bench left: %w", err)
	}
	if err := s.startKafka(ctx); err != nil {
		return s, err
	}
	for i := range postgres {
		name := "postgres"
		if postgres > 1 {
			name += "-" + strconv.Itoa(i+1)
		}
		if err := s.startPostgres(ctx, name); err != nil {
			return s, err
		}
	}
	return s, nil
}

// startKafka starts one node, broker and controller, with Kafka's defaults but for what one node cannot have.
func (s *servers) startKafka(ctx context.Context) error {
	controller, err := freePort()
	if err != nil {
		return err
	}
	s.kafka, err = s.run(ctx, "kafka", kafkaImage, func(bind string, addr netip.AddrPort) []testcontainers.ContainerCustomizer {
		// The image writes its configuration below /opt at each start, which not every build of it lets its own user do.
		root := testcontainers.WithConfigModifier(func(c *container.Config) { c.User = "root" })
		return []testcontainers.ContainerCustomizer{root, testcontainers.WithEnv(map[string]string{
			"KAFKA_NODE_ID":                        "1",
			"KAFKA_PROCESS_ROLES":                  "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":       fmt.Sprintf("1@127.0.0.1:%d", controller),
			"KAFKA_CONTROLLER_LISTENER_NAMES":      "CONTROLLER",
			"KAFKA_LISTENERS":                      fmt.Sprintf("PLAINTEXT://%s:%d,CONTROLLER://127.0.0.1:%d", bind, addr.Port(), controller),
			"KAFKA_ADVERTISED_LISTENERS":           "PLAINTEXT://" + addr.String(),
			"KAFKA_INTER_BROKER_LISTENER_NAME":     "PLAINTEXT",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",

			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",

			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":        "false",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
		})}
	})
	if err != nil {
		return err
	}
	c, err := broker.Open(broker.Config{Brokers: []string{s.kafka.addr.String()}, ClientID: "bench"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := s.kafka.await(ctx, c.Ping); err != nil {
		return err
	}
	topics, err := saga.Topics(partitions, system.Choreography()...)
	if err != nil {
		return err
	}
	for _, name := range usual.Topics() {
		topics = append(topics, broker.TopicSpec{Name: name, Partitions: partitions})
	}
	return c.EnsureTopics(ctx, topics)
}

// startPostgres starts a server with the image's settings: every commit reaches the disk before it is acknowledged.
// Statements are counted, which costs it a little.
func (s *servers) startPostgres(ctx context.Context, name string) error {
	srv, err := s.run(ctx, name, postgresImage, func(bind string, addr netip.AddrPort) []testcontainers.ContainerCustomizer {
		return []testcontainers.ContainerCustomizer{
			testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": password, "PGPORT": strconv.Itoa(int(addr.Port()))}),
			testcontainers.WithCmd("postgres", "-c", "listen_addresses="+bind, "-c", "max_connections=300",
				"-c", "shared_preload_libraries=pg_stat_statements"),
		}
	})
	if err != nil {
		return err
	}
	s.pg = append(s.pg, srv)
	return srv.await(ctx, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, srv.url("postgres", "postgres"))
		if err != nil {
			return err
		}
		defer conn.Close(ctx) //nolint:errcheck // nothing was written
		_, err = conn.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`)
		return err
	})
}

// createDatabase makes a new database, with a role of its own, on the service's server, and returns its URL.
func (s *servers) createDatabase(ctx context.Context, service, database string) (string, error) {
	srv := s.pg[serviceIndex(service)%len(s.pg)]
	conn, err := pgx.Connect(ctx, srv.url("postgres", "postgres"))
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", database, err)
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement has been answered
	for _, sql := range []string{
		fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, pgx.Identifier{database}.Sanitize(), password),
		fmt.Sprintf(`CREATE DATABASE %[1]s OWNER %[1]s`, pgx.Identifier{database}.Sanitize()),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("create database %s: %w", database, err)
		}
	}
	return srv.url(database, database), nil
}
