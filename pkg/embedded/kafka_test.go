package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/segmentio/kafka-go/protocol"
	"go.uber.org/goleak"

	"github.com/converge-dev/converge/pkg/embedded"
)

// What a broker acknowledged is there after it was stopped, and after it was killed.
func TestKafkaKeepsItsState(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, dir string) (addr string){
		"stopped": func(t *testing.T, dir string) string {
			srv, err := embedded.Kafka(t.Context(), embedded.KafkaConfig{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Stop()
			if err := fill(t.Context(), srv.Addr()); err != nil {
				t.Fatal(err)
			}
			return srv.Addr()
		},
		"killed": func(t *testing.T, dir string) string { return killParent(t, "kafka", dir) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, dir := deadline(t), t.TempDir()
			addr := run(t, dir)
			_, port, _ := strings.Cut(addr, ":")
			number, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			srv, err := embedded.Kafka(ctx, embedded.KafkaConfig{Dir: dir, Port: number})
			if err != nil {
				t.Fatal(err)
			}
			defer srv.Stop()

			client, done := connect(srv.Addr())
			defer done()
			meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{"t"}})
			if err != nil {
				t.Fatal(err)
			}
			if n := len(meta.Topics[0].Partitions); n != 3 {
				t.Errorf("the topic has %d partitions, want 3", n)
			}
			got, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: "g", Topics: map[string][]int{"t": {0}}})
			if err != nil {
				t.Fatal(err)
			}
			if at := got.Topics["t"][0].CommittedOffset; at != 1 {
				t.Errorf("the group's offset is %d, want 1", at)
			}
			records, err := client.Fetch(ctx, &kafka.FetchRequest{Topic: "t", Partition: 0, Offset: 0, MinBytes: 1, MaxBytes: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"a", "b"} {
				r, err := records.Records.ReadRecord()
				if err != nil {
					t.Fatalf("read record %q: %v", want, err)
				}
				if v, _ := protocol.ReadAll(r.Value); string(v) != want {
					t.Errorf("read %q, want %q", v, want)
				}
			}
		})
	}
}

// kafkaParent runs a broker, gives it a state, and waits to be killed.
func kafkaParent(dir string) {
	srv, err := embedded.Kafka(context.Background(), embedded.KafkaConfig{Dir: dir})
	if err == nil {
		err = fill(context.Background(), srv.Addr())
	}
	if err != nil {
		panic(err)
	}
	fmt.Println(srv.Addr())
	select {}
}

// connect makes a client with connections of its own, which done closes.
func connect(addr string) (client *kafka.Client, done func()) {
	transport := &kafka.Transport{}
	return &kafka.Client{Addr: kafka.TCP(addr), Transport: transport}, transport.CloseIdleConnections
}

// fill makes a topic, two records in it, and a group that has handled the first.
func fill(ctx context.Context, addr string) error {
	client, done := connect(addr)
	defer done()
	created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: "t", NumPartitions: 3, ReplicationFactor: 1}},
	})
	if err = errors.Join(err, created.Errors["t"]); err != nil {
		return err
	}
	for _, value := range []string{"a", "b"} {
		produced, err := client.Produce(ctx, &kafka.ProduceRequest{
			Topic: "t", Partition: 0, RequiredAcks: kafka.RequireAll, Compression: compress.None,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte(value))}),
		})
		if err == nil {
			err = produced.Error
		}
		if err != nil {
			return err
		}
	}
	committed, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: "g", GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{"t": {{Partition: 0, Offset: 1}}},
	})
	if err != nil {
		return err
	}
	return committed.Topics["t"][0].Error
}

func TestKafkaPortTaken(t *testing.T) {
	srv, err := embedded.Kafka(t.Context(), embedded.KafkaConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	_, port, _ := strings.Cut(srv.Addr(), ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	_, err = embedded.Kafka(t.Context(), embedded.KafkaConfig{Port: number})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), port) {
		t.Errorf("got %v, want an error that names port %s", err, port)
	}
}

// A stopped broker leaves nothing running in the process.
func TestKafkaStops(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	srv, err := embedded.Kafka(t.Context(), embedded.KafkaConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	client, done := connect(srv.Addr())
	defer done()
	if _, err := client.Metadata(t.Context(), &kafka.MetadataRequest{}); err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	srv.Stop()
}
