package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// A service creates its topics with the replicas that it was told, or as many as there can be. Of topics that somebody
// else has made, one line each says what to change.
func TestTopicsReplication(t *testing.T) {
	cluster := brokertest.Fake(t, kfake.NumBrokers(3))
	const weak = "loyalty.points"
	cluster.CreateTopic(t, weak, 2)
	client, err := broker.Open(broker.Config{Brokers: cluster.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	svc := saga.Service{Name: "loyalty", Publishes: []saga.AnyTopic{saga.NewTopic[struct{}](weak), saga.NewTopic[struct{}]("loyalty.levels")}}
	ensure := func(env map[string]string) string {
		t.Helper()
		settings := NewSettings(func(name string) string { return env[name] })
		k := readKafka(settings, "loyalty")
		if err := settings.Err(); err != nil {
			t.Fatal(err)
		}
		k.partitions = 2
		var out bytes.Buffer
		if err := k.newTopics(client, svc, slog.New(slog.NewTextHandler(&out, nil))).ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for _, create := range []string{"true", "false"} {
		said := ensure(map[string]string{"KAFKA_CREATE_TOPICS": create})
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, "topic="+weak) || !strings.Contains(said, "kafka-reassign-partitions.sh") {
			t.Errorf("KAFKA_CREATE_TOPICS=%s: logged %q, want one line, for %s", create, said, weak)
		}
	}
	if said := ensure(map[string]string{"KAFKA_REPLICATION": "1"}); said != "" {
		t.Errorf("one replica was asked for, and logged was %q", said)
	}
}
