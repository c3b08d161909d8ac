package brokertest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/converge-dev/converge/testkit/brokertest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

func TestRestartKeepsAddressAndData(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		topic, before := c.Topic(t, 1), c.Brokers()[0]
		produce(ctx, t, before, topic, "a")

		c.Restart(t)
		if after := c.Brokers()[0]; after != before {
			t.Fatalf("the address became %s, was %s", after, before)
		}
		produce(ctx, t, before, topic, "b")

		r := kafka.NewReader(kafka.ReaderConfig{Brokers: c.Brokers(), Topic: topic, MaxWait: 100 * time.Millisecond})
		defer r.Close()
		for _, want := range []string{"a", "b"} {
			m, err := r.ReadMessage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Value) != want {
				t.Errorf("read %q, want %q", m.Value, want)
			}
		}
	})
}

// A group's members may ask for a short session timeout, and the group forms without waiting for more members.
func TestGroup(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		topic, name := c.Topic(t, 2), brokertest.Name(t)
		begin := time.Now()
		group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
			ID: name, Brokers: c.Brokers(), Topics: []string{topic}, StartOffset: kafka.FirstOffset,
			SessionTimeout: 200 * time.Millisecond, HeartbeatInterval: 50 * time.Millisecond, JoinGroupBackoff: 50 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer group.Close()
		gen, err := group.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(gen.Assignments[topic]); n != 2 {
			t.Errorf("assigned %d partitions, want 2", n)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("the group took %s to form", took)
		}
	})
}

// produce writes a value, as soon as the partition has its leader: after a start it takes a moment.
func produce(ctx context.Context, t *testing.T, addr, topic, value string) {
	t.Helper()
	for {
		err := produceOnce(ctx, addr, topic, value)
		if err == nil {
			return
		}
		if !errors.Is(err, kafka.NotLeaderForPartition) && !errors.Is(err, kafka.LeaderNotAvailable) || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func produceOnce(ctx context.Context, addr, topic, value string) error {
	conn, err := kafka.DialLeader(ctx, "tcp", addr, topic, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.WriteMessages(kafka.Message{Value: []byte(value)})
	return err
}
