package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"

	"github.com/converge-dev/converge/pkg/broker"
)

// kafkaDir is where brokers keep their data.
const kafkaDir = "/var/lib/kafka/data"

// startKafka starts the brokers, the first of which is the controller as well, and creates the topics.
func (s *Servers) startKafka(ctx context.Context, cfg Config) error {
	controller, err := freePort()
	if err != nil {
		return err
	}
	volume := ""
	var holder *testcontainers.DockerContainer
	if cfg.Forgetful {
		if volume, holder, err = s.heldVolume(ctx, "kafka", KafkaImage, kafkaDir, nil); err != nil {
			return fmt.Errorf("make a volume for Kafka: %w", err)
		}
	}
	s.Kafka, err = s.startBroker(ctx, cfg, "kafka", controller, volume, map[string]string{
		"KAFKA_NODE_ID":       "1",
		"KAFKA_PROCESS_ROLES": "broker,controller",
	})
	if err != nil {
		return err
	}
	s.Kafka.holder = holder
	s.Kafka.ready = s.ready(s.Kafka, 1)
	if err := s.Kafka.Await(ctx); err != nil {
		return err
	}
	if cfg.Second {
		if err := s.startSecond(ctx, cfg, controller); err != nil {
			return err
		}
	}
	return s.CreateTopics(ctx, cfg.Topics)
}

// startSecond adds a broker. The groups' own topic is made before that, so that all groups are coordinated by the
// first.
func (s *Servers) startSecond(ctx context.Context, cfg Config, controller uint16) (err error) {
	if runtime.GOOS != "linux" {
		return errors.New("a second broker needs Linux, where containers share the machine's network")
	}
	if err := s.coordinate(ctx); err != nil {
		return err
	}
	s.Second, err = s.startBroker(ctx, cfg, "kafka-2", controller, "", map[string]string{
		"KAFKA_NODE_ID":       "2",
		"KAFKA_PROCESS_ROLES": "broker",
		"KAFKA_HEAP_OPTS":     "-Xms128m -Xmx384m", // it holds a third, and the machine is small
	})
	if err != nil {
		return err
	}
	s.Second.ready = s.ready(s.Second, 2)
	return s.Second.Await(ctx)
}

// startBroker runs a broker with Kafka's defaults but for what one or two nodes cannot have.
func (s *Servers) startBroker(ctx context.Context, cfg Config, name string, controller uint16, volume string, node map[string]string) (*Server, error) {
	return s.run(ctx, name, KafkaImage, func(bind string, addr netip.AddrPort) ([]testcontainers.ContainerCustomizer, error) {
		advertised := addr.String()
		if cfg.Advertise != nil {
			var err error
			if advertised, err = cfg.Advertise(addr); err != nil {
				return nil, err
			}
		}
		listeners := fmt.Sprintf("PLAINTEXT://%s:%d", bind, addr.Port())
		if node["KAFKA_PROCESS_ROLES"] != "broker" {
			listeners += fmt.Sprintf(",CONTROLLER://127.0.0.1:%d", controller)
		}
		env := map[string]string{
			"KAFKA_CONTROLLER_QUORUM_VOTERS":       fmt.Sprintf("1@127.0.0.1:%d", controller),
			"KAFKA_CONTROLLER_LISTENER_NAMES":      "CONTROLLER",
			"KAFKA_LISTENERS":                      listeners,
			"KAFKA_ADVERTISED_LISTENERS":           "PLAINTEXT://" + advertised,
			"KAFKA_INTER_BROKER_LISTENER_NAME":     "PLAINTEXT",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_LOG_DIRS":                       kafkaDir,

			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",

			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":        "false",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
		}
		maps.Copy(env, node)
		maps.Copy(env, cfg.Kafka)
		// The image writes its configuration below /opt at each start, which not every build of it lets its own user
		// do.
		root := testcontainers.WithConfigModifier(func(c *container.Config) { c.User = "root" })
		opts := []testcontainers.ContainerCustomizer{root, testcontainers.WithEnv(env)}
		if volume != "" {
			opts = append(opts, mounted(volume, kafkaDir))
		}
		return opts, nil
	})
}

// ready tells whether a broker answers, and is a leader to its cluster.
func (s *Servers) ready(srv *Server, node int) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		c, err := broker.Open(broker.Config{Brokers: []string{srv.Addr.String()}, ClientID: "rig"})
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.Ping(ctx); err != nil {
			return err
		}
		return s.leads(ctx, srv, node)
	}
}
