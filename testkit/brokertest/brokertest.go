// Package brokertest gives a test a Kafka broker: the in-process kfake, and Apache Kafka in a container where Docker
// answers. CONVERGE_TEST_SERVERS chooses ("docker" or "embedded"), as it does for package pgtest.
//
// A conformance suite runs on both brokers with [Each]. A test of something above the broker takes [Fake], which costs
// nothing, or [Kafka] or [Own], which are the real one where there is one.
//
//	func TestMain(m *testing.M) { brokertest.Main(m) }
//
//	func TestOrderPerKey(t *testing.T) {
//		brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
//			topic := c.Topic(t, 3)
//			...
//		})
//	}
//
// Both brokers create no topic on mention, let a group's members ask for a session timeout of 100 ms, and wait for no
// further members when a group forms.
package brokertest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/converge-dev/converge/testkit/internal/testserver"
)

// minSessionTimeout is the shortest session timeout a group member may ask for.
const minSessionTimeout = 100 * time.Millisecond

// Main runs a package's tests, ends the servers they started (pgtest's too), and exits.
func Main(m *testing.M) { testserver.Main(m) }

// Each runs fn as a subtest on a broker of each kind: on kfake, and on Apache Kafka where Docker is used.
func Each(t *testing.T, fn func(t *testing.T, c *Cluster)) {
	t.Helper()
	t.Run("kfake", func(t *testing.T) { fn(t, Fake(t)) })
	if testserver.Docker(t) {
		t.Run("kafka", func(t *testing.T) { fn(t, Kafka(t)) })
	}
}

// Kafka is Apache Kafka where Docker is used, and otherwise a fresh kfake. The container is shared by the tests of the
// binary: a test uses topics and groups of its own names ([Cluster.Topic], [Name]), and one that stops the broker must
// not run in parallel with others. One that needs topics or groups of fixed names takes [Own].
func Kafka(t testing.TB) *Cluster {
	t.Helper()
	if !testserver.Docker(t) {
		return Fake(t)
	}
	binary.mu.Lock()
	defer binary.mu.Unlock()
	if binary.kafka == nil {
		c := &container{}
		testserver.AtExit(t, c.remove)
		binary.kafka, binary.err = &Cluster{Name: image, broker: c}, c.launch(t.Context())
	}
	if binary.err != nil {
		t.Fatalf("start Kafka: %v", binary.err)
	}
	testserver.Announce("brokertest", image+" in Docker")
	return binary.kafka
}

// Own is [Kafka] of the test's own, which ends with it.
func Own(t testing.TB) *Cluster {
	t.Helper()
	if !testserver.Docker(t) {
		return Fake(t)
	}
	c := &container{}
	t.Cleanup(func() {
		if err := c.remove(context.Background()); err != nil {
			t.Errorf("remove Kafka: %v", err)
		}
	})
	if err := c.launch(t.Context()); err != nil {
		t.Fatalf("start Kafka: %v", err)
	}
	testserver.Announce("brokertest", image+" in Docker")
	return &Cluster{Name: image, broker: c}
}

// The Kafka container that all tests of a binary share.
var binary struct {
	mu    sync.Mutex
	kafka *Cluster // set with the first start, however it went
	err   error
}

// Fake is a fresh kfake broker in this process, which ends with the test. The options are kfake's, for what a test
// needs beyond the defaults, such as TLS or SASL.
func Fake(t testing.TB, opts ...kfake.Opt) *Cluster {
	t.Helper()
	f := &fake{opts: append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(minSessionTimeout), kfake.DataDir(t.TempDir()),
	}, opts...)}
	if err := f.start(t.Context()); err != nil {
		t.Fatalf("start kfake: %v", err)
	}
	t.Cleanup(func() { _ = f.stop(context.Background()) })
	testserver.Announce("brokertest", "kfake in process")
	return &Cluster{Name: "kfake", broker: f}
}

// FakeSecured is [Fake] behind TLS, which lets one user in, by the SASL mechanism.
func FakeSecured(t testing.TB, server *tls.Config, mechanism, user, password string) *Cluster {
	t.Helper()
	return Fake(t, kfake.TLS(server), kfake.EnableSASL(), kfake.Superuser(mechanism, user, password))
}

// Cluster is a broker under test. Stop, Start and Restart must not be called at the same time.
type Cluster struct {
	Name    string // "kfake", or the container's image
	broker  broker
	stopped bool
}

// broker is a server that keeps its address and its data when it is stopped and started again.
type broker interface {
	addr() string
	start(context.Context) error
	stop(context.Context) error
}

// Brokers are the addresses to connect to, host:port.
func (c *Cluster) Brokers() []string { return []string{c.broker.addr()} }

// Stop shuts the broker down. If the test does not start it again, its end does, for the tests that share it.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	if err := c.broker.stop(t.Context()); err != nil {
		t.Fatalf("stop %s: %v", c.Name, err)
	}
	c.stopped = true
	t.Cleanup(func() {
		if c.stopped {
			c.start(context.Background(), t)
		}
	})
}

// Start starts the stopped broker, with the same address and data, and waits until it serves.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	c.start(t.Context(), t)
}

func (c *Cluster) start(ctx context.Context, t testing.TB) {
	t.Helper()
	if err := c.broker.start(ctx); err != nil {
		t.Fatalf("start %s: %v", c.Name, err)
	}
	c.stopped = false
}

// Restart is Stop and Start.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.Stop(t)
	c.Start(t)
}

// Topic creates a topic with a name of its own.
func (c *Cluster) Topic(t testing.TB, partitions int) string {
	t.Helper()
	name := Name(t)
	c.CreateTopic(t, name, partitions)
	return name
}

// admin is a client for a test's own requests, and how long they may take.
func (c *Cluster) admin(t testing.TB) (context.Context, *kgo.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return ctx, client
}

// CreateTopic creates a topic and waits until its partitions are led. It is no error if it exists.
func (c *Cluster) CreateTopic(t testing.TB, name string, partitions int) {
	t.Helper()
	ctx, client := c.admin(t)
	req := kmsg.NewCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, int32(partitions), 1
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatalf("create topic %s: %v", name, err)
	}
	for err := led(ctx, client, name, partitions); err != nil; err = led(ctx, client, name, partitions) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("topic %s has no leaders: %v", name, err)
		}
	}
}

// led asks the leader of each partition, which a broker may not know itself to be right after the cluster has said so.
func led(ctx context.Context, client *kgo.Client, name string, partitions int) error {
	req := kmsg.NewListOffsetsRequest()
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic = name
	for p := range partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = int32(p), -1
		topic.Partitions = append(topic.Partitions, part)
	}
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// Name makes a name for a topic or a group that no other test uses.
func Name(t testing.TB) string {
	base := strings.Map(func(r rune) rune {
		if r == '/' || r == '#' || r == ' ' {
			return '-'
		}
		return r
	}, t.Name())
	return fmt.Sprintf("%s-%s", base, strings.ToLower(rand.Text()[:8]))
}
