package brokertest

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Remake deletes a topic and creates it again, empty.
func (c *Cluster) Remake(t testing.TB, name string, partitions int) {
	t.Helper()
	ctx, client := c.admin(t)
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
