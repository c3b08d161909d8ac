package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/segmentio/kafka-go"
)

// TopicSpec describes a topic to create. Config holds Kafka's own topic settings, such as retention.ms.
type TopicSpec struct {
	Name       string
	Partitions int
	Config     map[string]string
}

// Topics lists the topics that there are, by name.
func (c *Client) Topics(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var names []string
	for _, t := range res.Topics {
		if t.Error == nil && !t.Internal {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// TopicError is what is wrong with a topic of a cluster that answers: waiting does not change it.
type TopicError struct{ error }

// Unwrap returns the reason.
func (e *TopicError) Unwrap() error { return e.error }

// EnsureTopics creates the topics that do not exist, with as many replicas as the cluster's default says. One that exists
// is left as it is, whatever its settings, except that fewer partitions than wanted is an error: adding
// partitions moves keys, and with them their order, so that is an operator's decision. What an operator must change is a
// [*TopicError], also within others.
func (c *Client) EnsureTopics(ctx context.Context, specs []TopicSpec) error {
	ctx, cancel := context.WithTimeout(ctx, 3*requestTimeout)
	defer cancel()
	req := &kafka.CreateTopicsRequest{}
	for _, s := range specs {
		t := kafka.TopicConfig{Topic: s.Name, NumPartitions: s.Partitions, ReplicationFactor: -1}
		for k, v := range s.Config {
			t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
		}
		req.Topics = append(req.Topics, t)
	}
	res, err := c.client.CreateTopics(ctx, req)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	var existing []string
	for topic, err := range res.Errors {
		switch {
		case errors.Is(err, kafka.TopicAlreadyExists):
			existing = append(existing, topic)
		case err != nil:
			err = fmt.Errorf("create topic %s: %w", topic, err)
			if code, ok := errors.AsType[kafka.Error](err); ok && !code.Temporary() {
				err = &TopicError{err}
			}
			errs = append(errs, err)
		}
	}
	if len(existing) > 0 {
		c.forget(existing...)
		leaders, err := c.leadersOf(ctx, existing...)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("look up topics: %w", err))...)
		}
		for _, s := range specs {
			if have := len(leaders[s.Name]); have > 0 && have < s.Partitions {
				errs = append(errs, &TopicError{fmt.Errorf("topic %s has %d partitions, want at least %d", s.Name, have, s.Partitions)})
			}
		}
	}
	return errors.Join(errs...)
}
