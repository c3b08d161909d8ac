package brokertest

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/converge-dev/converge/testkit/internal/testserver"
)

const image = "apache/kafka:4.3.1"

// fake is kfake in this process.
type fake struct {
	opts    []kfake.Opt
	cluster *kfake.Cluster
	address string // from the first start on
}

func (f *fake) addr() string { return f.address }

func (f *fake) start(context.Context) (err error) {
	listen := kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		return net.Listen(network, cmp.Or(f.address, "127.0.0.1:0"))
	})
	if f.cluster, err = kfake.NewCluster(append(slices.Clone(f.opts), listen)...); err != nil {
		return err
	}
	f.address = f.cluster.ListenAddrs()[0]
	return nil
}

func (f *fake) stop(context.Context) error {
	f.cluster.Close()
	return nil
}

// container is Apache Kafka in Docker: one node, broker and controller.
type container struct{ *testserver.Container }

// launch runs the container and waits until it serves. It may have to be removed even after an error.
func (c *container) launch(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c.Container, err = testserver.Run(ctx, testserver.Spec{
		Image: image, Port: "9092/tcp",
		// The image writes its configuration below /opt at each start, which not every build of it lets its own user
		// do.
		User: "root",
		Env: map[string]string{
			"KAFKA_NODE_ID":                   "1",
			"KAFKA_PROCESS_ROLES":             "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":  "1@localhost:9093",
			"KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
			// Clients are told the published address. The broker, which cannot reach that one, talks to itself on
			// another.
			"KAFKA_LISTENERS":                      "PLAINTEXT://:9092,BROKER://:9094,CONTROLLER://:9093",
			"KAFKA_ADVERTISED_LISTENERS":           "PLAINTEXT://{addr},BROKER://localhost:9094",
			"KAFKA_INTER_BROKER_LISTENER_NAME":     "BROKER",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",

			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":                 "1",
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":                     "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":                    "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
			"KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR":            "1",

			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":        "false",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
			"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS":     strconv.FormatInt(minSessionTimeout.Milliseconds(), 10),
			"KAFKA_HEAP_OPTS":                        "-Xmx512m -Xms256m -XX:TieredStopAtLevel=1", // starts in half the time
		},
	})
	if err != nil {
		return err
	}
	return c.wait(ctx)
}

func (c *container) addr() string { return c.Addr }

func (c *container) start(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	return c.wait(ctx)
}

func (c *container) stop(ctx context.Context) error { return c.Stop(ctx) }

func (c *container) remove(ctx context.Context) error {
	if c.Container == nil {
		return nil
	}
	return c.Terminate(ctx)
}

// wait returns when the broker has its group coordinator, the last thing to come up: asking for it makes the offsets
// topic, which a test's first group would otherwise wait for.
func (c *container) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addr), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer client.Close()
	return c.Await(ctx, func(ctx context.Context) error {
		req := kmsg.NewFindCoordinatorRequest()
		req.CoordinatorKeys = []string{"brokertest"}
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.Coordinators[0].ErrorCode)
	})
}

// Compact has kfake compact its topics. Apache Kafka does so by itself, every 15 seconds.
func Compact(c *Cluster) {
	if f, ok := c.broker.(*fake); ok {
		f.cluster.Compact()
	}
}

// NewEpoch gives a topic's first partition a new leader epoch, as the election of another leader does: kfake at once,
// Apache Kafka with a restart. What was written stays.
func NewEpoch(t testing.TB, c *Cluster, topic string) {
	t.Helper()
	f, ok := c.broker.(*fake)
	if !ok {
		c.Restart(t)
		return
	}
	if err := f.cluster.MoveTopicPartition(topic, 0, f.cluster.LeaderFor(topic, 0)); err != nil {
		t.Fatal(err)
	}
}

// Count counts the requests with an API key that a kfake gets from now on.
func Count(t testing.TB, c *Cluster, key int16) *atomic.Int64 {
	t.Helper()
	f, ok := c.broker.(*fake)
	if !ok {
		t.Fatalf("%s does not count requests", c.Name)
	}
	var n atomic.Int64
	f.cluster.ControlKey(key, func(kmsg.Request) (kmsg.Response, error, bool) {
		n.Add(1)
		return nil, nil, false
	})
	return &n
}
