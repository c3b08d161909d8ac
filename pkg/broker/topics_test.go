package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// clusterOf is a cluster of so many brokers.
func clusterOf(t *testing.T, brokers int) (*broker.Client, *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(brokers), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := broker.Open(broker.Config{Brokers: cluster.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	admin, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	return client, admin
}

// createTopic creates a topic as somebody else would.
func createTopic(t *testing.T, admin *kgo.Client, name string, replication int, insync string) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 2, int16(replication)
	config := kmsg.NewCreateTopicsRequestTopicConfig()
	config.Name, config.Value = "min.insync.replicas", &insync
	topic.Configs = append(topic.Configs, config)
	req.Topics = append(req.Topics, topic)
	res, err := req.RequestWith(t.Context(), admin)
	if err == nil {
		err = kerr.ErrorForCode(res.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Topics are created with as many replicas as the cluster can, up to three, and are found right afterwards. Those that
// somebody else has made are named with what they have, what they should have, and the command for it.
func TestReplication(t *testing.T) {
	weak := func(t *testing.T, client *broker.Client, specs ...broker.TopicSpec) map[string]broker.WeakTopic {
		t.Helper()
		list, err := client.WeakTopics(t.Context(), specs)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]broker.WeakTopic{}
		for _, w := range list {
			out[w.Topic] = w
		}
		return out
	}
	for brokers, want := range map[int][2]int{1: {1, 1}, 2: {2, 2}, 3: {3, 2}, 4: {3, 2}} {
		t.Run(fmt.Sprintf("%d brokers", brokers), func(t *testing.T) {
			client, _ := clusterOf(t, brokers)
			spec := broker.TopicSpec{Name: "t", Partitions: 2, Config: map[string]string{"retention.ms": "1000"}}
			if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{spec}); err != nil {
				t.Fatal(err)
			}
			if w := weak(t, client, spec, broker.TopicSpec{Name: "missing", Partitions: 1}); len(w) != 0 {
				t.Errorf("%v is weak, just created", w)
			}
			replicas, insync := broker.ReplicationOf(t, client, "t")
			if replicas != want[0] || insync != want[1] {
				t.Errorf("%d replicas, min.insync.replicas=%d; want %v", replicas, insync, want)
			}
		})
	}
	t.Run("more replicas than brokers", func(t *testing.T) {
		client, _ := clusterOf(t, 1)
		err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: "t", Partitions: 1, Replication: 3}})
		if _, ok := errors.AsType[*broker.TopicError](err); !ok {
			t.Errorf("error %v, want a TopicError", err)
		}
	})
	t.Run("topics of others", func(t *testing.T) {
		client, admin := clusterOf(t, 3)
		createTopic(t, admin, "one", 1, "1")
		createTopic(t, admin, "careless", 3, "1")
		createTopic(t, admin, "stuck", 1, "2")
		createTopic(t, admin, "right", 3, "2")
		specs := []broker.TopicSpec{
			{Name: "one", Partitions: 2}, {Name: "careless", Partitions: 2}, {Name: "right", Partitions: 2},
			{Name: "stuck", Partitions: 2, Replication: 1},
		}
		got := weak(t, client, specs...)
		for topic, want := range map[string]broker.WeakTopic{
			"one":      {Have: "replication factor 1, min.insync.replicas=1", Want: "replication factor 3, min.insync.replicas=2", Command: "kafka-reassign-partitions.sh"},
			"careless": {Have: "replication factor 3, min.insync.replicas=1", Want: "replication factor 3, min.insync.replicas=2", Command: "--entity-name careless --add-config min.insync.replicas=2"},
			"stuck":    {Have: "replication factor 1, min.insync.replicas=2", Want: "replication factor 1, min.insync.replicas=1", Command: "--entity-name stuck --add-config min.insync.replicas=1"},
		} {
			w := got[topic]
			if w.Have != want.Have || w.Want != want.Want || !strings.Contains(w.Command, want.Command) {
				t.Errorf("%s: %+v\nwant %+v", topic, w, want)
			}
		}
		if _, ok := got["right"]; ok || len(got) != 3 {
			t.Errorf("%d topics are weak, want 3: %v", len(got), got)
		}

		_, plan, _ := strings.Cut(got["one"].Command, "echo '")
		plan, _, _ = strings.Cut(plan, "'")
		var parsed struct {
			Partitions []struct {
				Topic    string
				Replicas []int32
			}
		}
		if err := json.Unmarshal([]byte(plan), &parsed); err != nil || len(parsed.Partitions) != 2 {
			t.Fatalf("plan %s: %v", plan, err)
		}
		for _, p := range parsed.Partitions {
			distinct := map[int32]bool{}
			for _, r := range p.Replicas {
				distinct[r] = true
			}
			if p.Topic != "one" || len(distinct) != 3 {
				t.Errorf("partition %+v, want 3 replicas", p)
			}
		}
	})
}

// Both brokers say of what they were asked to create that it is as it should be, and name a topic with too few
// partitions.
func TestTooFewPartitions(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, name := open(t, c), brokertest.Name(t)
		spec := broker.TopicSpec{Name: name, Partitions: 2}
		if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{spec}); err != nil {
			t.Fatal(err)
		}
		if weak, err := client.WeakTopics(t.Context(), []broker.TopicSpec{spec}); err != nil || len(weak) != 0 {
			t.Errorf("weak topics %v, error %v", weak, err)
		}
		spec.Partitions = 6
		err := client.EnsureTopics(t.Context(), []broker.TopicSpec{spec})
		few, ok := errors.AsType[*broker.TooFewPartitionsError](err)
		if !ok || few.Topic != name || few.Have != 2 || few.Want != 6 || err.Error() != "topic "+name+" has 2 partitions, want at least 6" {
			t.Errorf("error %v", err)
		}
		if _, ok := errors.AsType[*broker.TopicError](err); !ok {
			t.Errorf("%v is no TopicError", err)
		}
	})
}
