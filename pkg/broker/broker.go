// Package broker is the only place that talks to Kafka: it produces, it consumes in groups, it manages topics. It wraps
// github.com/segmentio/kafka-go, of which it uses the protocol and the group membership, and leaves the Reader and the
// Writer alone: one produce request and one fetch request carry all partitions that a broker leads, which costs a
// fraction of one request per partition.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Header is one record header; a key may occur more than once.
type Header struct {
	Key   string
	Value []byte
}

// Record is one Kafka record. Partition and Offset are set on records that were read, and by Produce on those
// acknowledged.
type Record struct {
	Topic     string
	Partition int
	Offset    int64
	Key       []byte // nil: no key, any partition
	Value     []byte
	Headers   []Header
	Time      time.Time // milliseconds; zero on produce: now
}

// Header returns the value of the first header of that name, or "".
func (r *Record) Header(key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int
}

// Config says which cluster to talk to and how.
type Config struct {
	Brokers  []string // host:port of one or more brokers to start from
	ClientID string
	TLS      *tls.Config // nil: plain text

	SASLMechanism string // "", PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	SASLUser      string
	SASLPassword  string
}

func (c Config) mechanism() (sasl.Mechanism, error) {
	switch c.SASLMechanism {
	case "":
		return nil, nil
	case "PLAIN":
		return plain.Mechanism{Username: c.SASLUser, Password: c.SASLPassword}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, c.SASLUser, c.SASLPassword)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, c.SASLUser, c.SASLPassword)
	}
	return nil, fmt.Errorf("SASL mechanism %q is not known; use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", c.SASLMechanism)
}

const (
	dialTimeout     = 3 * time.Second
	requestTimeout  = 10 * time.Second // one round trip, beyond what the broker itself is asked to wait
	metadataRefresh = 3 * time.Second
)

// Client is a connection pool to one cluster, safe for concurrent use.
type Client struct {
	cfg       Config
	transport *kafka.Transport
	client    *kafka.Client

	mu      sync.Mutex
	leaders map[string][]leader // topic → leader by partition

	limits topicLimits
}

// Open makes a client. It does not connect: a cluster that is away is an error of the first call that needs it.
func Open(cfg Config) (*Client, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("no Kafka brokers given; want a list of host:port")
	}
	mechanism, err := cfg.mechanism()
	if err != nil {
		return nil, err
	}
	transport := &kafka.Transport{
		Dial:        (&net.Dialer{Timeout: dialTimeout}).DialContext,
		DialTimeout: dialTimeout, ClientID: cfg.ClientID, TLS: cfg.TLS, SASL: mechanism, MetadataTTL: metadataRefresh,
	}
	return &Client{
		cfg:       cfg,
		transport: transport,
		client:    &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Transport: transport},
		leaders:   map[string][]leader{},
	}, nil
}

// Close drops the client's connections. Calls under way fail.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Ping asks the cluster for its brokers.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}}); err != nil {
		return fmt.Errorf("reach Kafka at %v: %w", c.cfg.Brokers, err)
	}
	return nil
}

// errNoTopic says that the cluster does not know a topic, yet or any more.
var errNoTopic = errors.New("topic does not exist")

// leader is who leads a partition.
type leader struct {
	id    int   // of the broker; -1: none
	epoch int32 // -1: not known
}

// leadersOf returns the leaders of each topic's partitions. Known topics come from memory; forget drops them.
func (c *Client) leadersOf(ctx context.Context, topics ...string) (map[string][]leader, error) {
	c.mu.Lock()
	known := maps.Clone(c.leaders)
	c.mu.Unlock()
	var missing []string
	for _, t := range topics {
		if _, ok := known[t]; !ok {
			missing = append(missing, t)
		}
	}
	if len(missing) == 0 {
		return known, nil
	}
	res, err := c.describe(ctx, missing)
	if err != nil {
		return nil, err
	}
	found := leadersIn(res.Topics)
	maps.Copy(known, found)
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.leaders, found)
	return known, nil
}

// leadersIn is the leaders of the topics that there are.
func leadersIn(topics []metadata.ResponseTopic) map[string][]leader {
	out := map[string][]leader{}
	for _, t := range topics {
		if t.ErrorCode != 0 || len(t.Partitions) == 0 {
			continue
		}
		leaders := make([]leader, len(t.Partitions))
		for i := range t.Partitions {
			p := &t.Partitions[i]
			leaders[p.PartitionIndex] = leader{int(p.LeaderID), p.LeaderEpoch}
			if p.ErrorCode != 0 {
				leaders[p.PartitionIndex].id = -1
			}
		}
		out[t.Name] = leaders
	}
	return out
}

// forget makes the next leadersOf ask the cluster again: a leader moved, or a topic grew.
func (c *Client) forget(topics ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range topics {
		delete(c.leaders, t)
	}
}

func (c *Client) roundTrip(ctx context.Context, timeout time.Duration, req protocol.Message) (protocol.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return c.transport.RoundTrip(ctx, c.client.Addr, req)
}

// ask is roundTrip for a question, which may be asked again: a pooled connection turns out to be dead only when it is
// used, and the pool may hold several.
func (c *Client) ask(ctx context.Context, timeout time.Duration, req protocol.Message) (res protocol.Message, err error) {
	for range 5 {
		res, err = c.roundTrip(ctx, timeout, req)
		if err == nil || ctx.Err() != nil || !(errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
			break
		}
	}
	return res, err
}

// perTopic gathers what a request says of partitions, as Kafka's requests are made up.
func perTopic[P any](tps iter.Seq[TopicPartition], say func(TopicPartition) P) map[string][]P {
	out := map[string][]P{}
	for tp := range tps {
		out[tp.Topic] = append(out[tp.Topic], say(tp))
	}
	return out
}

// codeErr is the error of a Kafka error code, nil for none.
func codeErr(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}
