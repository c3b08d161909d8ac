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

// Configure sets a topic's setting, as operators do.
func (c *Cluster) Configure(t testing.TB, topic, name, value string) {
	t.Helper()
	ctx, client := c.admin(t)
	req := kmsg.NewIncrementalAlterConfigsRequest()
	resource, setting := kmsg.NewIncrementalAlterConfigsRequestResource(), kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	setting.Name, setting.Value = name, &value
	resource.ResourceType, resource.ResourceName, resource.Configs = kmsg.ConfigResourceTypeTopic, topic, append(resource.Configs, setting)
	req.Resources = append(req.Resources, resource)
	resp, err := req.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("set %s of topic %s: %v", name, topic, err)
	}
}
