package brokertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Remake deletes a topic and creates it again, empty.
func (c *Cluster) Remake(t testing.TB, name string, partitions int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	gone := kmsg.NewDeleteTopicsRequest()
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	gone.Topics, gone.TopicNames = append(gone.Topics, topic), []string{name}
	for { // until the cluster says that there is none
		resp, err := gone.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			break
		}
		if err != nil {
			t.Fatalf("delete topic %s: %v", name, err)
		}
	}
	c.CreateTopic(t, name, partitions)
}
