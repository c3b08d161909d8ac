package rig

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/converge-dev/converge/pkg/broker"
)

// What whoever runs Kafka does to it, and services do not: pkg/broker has no need for it.

// admin asks a broker at its own address, and others where they say they are.
func admin(srv *Server) (c *kafka.Client, done func()) {
	transport := &kafka.Transport{ClientID: "rig"}
	return &kafka.Client{Addr: kafka.TCP(srv.Addr.String()), Timeout: 10 * time.Second, Transport: transport}, transport.CloseIdleConnections
}

// everyThird partition is led by the second broker.
const everyThird = 3

// CreateTopics creates those that do not exist, with their partitions where they belong if there are two brokers.
func (s *Servers) CreateTopics(ctx context.Context, specs []broker.TopicSpec) error {
	if s.Second == nil {
		c, err := broker.Open(broker.Config{Brokers: []string{s.Kafka.Addr.String()}, ClientID: "rig"})
		if err != nil {
			return err
		}
		defer c.Close()
		return c.EnsureTopics(ctx, specs)
	}
	c, done := admin(s.Kafka)
	defer done()
	req := &kafka.CreateTopicsRequest{}
	for _, spec := range specs {
		t := kafka.TopicConfig{Topic: spec.Name, NumPartitions: -1, ReplicationFactor: -1}
		for p := range spec.Partitions {
			on := 1
			if p%everyThird == everyThird-1 {
				on = 2
			}
			t.ReplicaAssignments = append(t.ReplicaAssignments, kafka.ReplicaAssignment{Partition: p, Replicas: []int{on}})
		}
		for k, v := range spec.Config {
			t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
		}
		req.Topics = append(req.Topics, t)
	}
	res, err := c.CreateTopics(ctx, req)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	var errs []error
	for topic, err := range res.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
			errs = append(errs, fmt.Errorf("create topic %s: %w", topic, err))
		}
	}
	return errors.Join(errs...)
}

// DeleteTopic deletes a topic with everything in it.
func (s *Servers) DeleteTopic(ctx context.Context, topic string) error {
	c, done := admin(s.Kafka)
	defer done()
	res, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err == nil {
		err = res.Errors[topic]
	}
	if err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	return nil
}

// ProduceCompressed writes a record, compressed, to the partition it names, and returns its offset. A topic's limit
// counts compressed bytes, so the record may be far larger than that.
func (s *Servers) ProduceCompressed(ctx context.Context, r broker.Record) (offset int64, err error) {
	c, done := admin(s.Kafka)
	defer done()
	record := kafka.Record{Key: kafka.NewBytes(r.Key), Value: kafka.NewBytes(r.Value)}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, kafka.Header{Key: h.Key, Value: h.Value})
	}
	res, err := c.Produce(ctx, &kafka.ProduceRequest{
		Topic: r.Topic, Partition: r.Partition, RequiredAcks: kafka.RequireAll, Compression: kafka.Gzip, Records: kafka.NewRecordReader(record),
	})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return 0, fmt.Errorf("produce to %s/%d: %w", r.Topic, r.Partition, err)
	}
	return res.BaseOffset, nil
}

// Leaderless counts the partitions that have no leader.
func (s *Servers) Leaderless(ctx context.Context) (n int, err error) {
	c, done := admin(s.Kafka)
	defer done()
	res, err := c.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return 0, fmt.Errorf("look for partitions without a leader: %w", err)
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if errors.Is(p.Error, kafka.LeaderNotAvailable) {
				n++
			}
		}
	}
	return n, nil
}

// coordinate waits until groups have a coordinator.
func (s *Servers) coordinate(ctx context.Context) error {
	c, done := admin(s.Kafka)
	defer done()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := c.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{Key: "rig", KeyType: kafka.CoordinatorKeyTypeConsumer})
		if err == nil {
			err = res.Error
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a coordinator: %w", err)
		case <-tick.C:
		}
	}
}

// leads returns an error while the cluster does not know a broker, or a partition of that broker has no leader.
func (s *Servers) leads(ctx context.Context, srv *Server, node int) error {
	if s.Second == nil {
		return nil
	}
	c, done := admin(srv)
	defer done()
	res, err := c.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	known := false
	for _, b := range res.Brokers {
		known = known || b.ID == node
	}
	if !known {
		return fmt.Errorf("the cluster does not know broker %d", node)
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			for _, r := range p.Replicas {
				if r.ID == node && p.Error != nil {
					return fmt.Errorf("%s/%d: %w", t.Name, p.ID, p.Error)
				}
			}
		}
	}
	return nil
}
