package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// TopicSpec describes a topic to create.
type TopicSpec struct {
	Name        string
	Partitions  int
	Replication int               // replicas of each partition; 0: the lesser of 3 and the brokers that there are
	Config      map[string]string // Kafka's own topic settings, such as retention.ms
}

// Names of Kafka's topic settings.
const (
	minInsync       = "min.insync.replicas"
	maxMessageBytes = "max.message.bytes"
)

// defaultReplication survives the loss of one broker while another is away.
const defaultReplication = 3

// replication is how many replicas the topic is to have in a cluster of so many brokers.
func (s *TopicSpec) replication(brokers int) int {
	return cmp.Or(s.Replication, min(defaultReplication, brokers))
}

// minInsyncFor is how many replicas must have a record before it is acknowledged: two, where there are as many, since
// one may be lost with all that it alone has.
func minInsyncFor(replication int) int { return min(2, replication) }

// TooFewPartitionsError says that a topic has fewer partitions than wanted. Adding some moves keys, and with them their
// order, so that is an operator's decision.
type TooFewPartitionsError struct {
	Topic      string
	Have, Want int
}

func (e *TooFewPartitionsError) Error() string {
	return fmt.Sprintf("topic %s has %d partitions, want at least %d", e.Topic, e.Have, e.Want)
}

// TopicError is what is wrong with a topic of a cluster that answers: waiting does not change it.
type TopicError struct{ error }

// Unwrap returns the reason.
func (e *TopicError) Unwrap() error { return e.error }

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

// EnsureTopics creates the topics that do not exist. Where the spec says nothing else, a record is acknowledged once
// two replicas have it, if there are two. A topic that exists is left as it is, whatever its settings;
// [Client.WeakTopics] tells of them. Fewer partitions than wanted is a [*TooFewPartitionsError]. All topics are tried;
// the errors come joined, and what an operator must change is a [*TopicError] among them.
func (c *Client) EnsureTopics(ctx context.Context, specs []TopicSpec) error {
	ctx, cancel := context.WithTimeout(ctx, 3*requestTimeout)
	defer cancel()
	cluster, err := c.describe(ctx, nil)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	req := &kafka.CreateTopicsRequest{}
	for _, s := range specs {
		replication := s.replication(len(cluster.Brokers))
		t := kafka.TopicConfig{Topic: s.Name, NumPartitions: s.Partitions, ReplicationFactor: replication}
		config := map[string]string{minInsync: strconv.Itoa(minInsyncFor(replication))}
		maps.Copy(config, s.Config)
		for k, v := range config {
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
				errs = append(errs, &TopicError{&TooFewPartitionsError{Topic: s.Name, Have: have, Want: s.Partitions}})
			}
		}
	}
	return errors.Join(errs...)
}

// WeakTopic is a topic that can lose acknowledged records with a single broker, or that takes none.
type WeakTopic struct {
	Topic   string
	Have    string // its settings that matter
	Want    string
	Command string // changes the one to the other
}

// WeakTopics tells which of the topics have fewer replicas than wanted, or acknowledge a record before two replicas
// have it where there are two, or ask for more replicas than they have. Topics that do not exist are left out.
func (c *Client) WeakTopics(ctx context.Context, specs []TopicSpec) ([]WeakTopic, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	names := make([]string, len(specs))
	for i := range specs {
		names[i] = specs[i].Name
	}
	cluster, err := c.describe(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", err)
	}
	topics := map[string]*metadata.ResponseTopic{}
	for i := range cluster.Topics {
		if t := &cluster.Topics[i]; t.ErrorCode == 0 && len(t.Partitions) > 0 {
			topics[t.Name] = t
		}
	}
	if len(topics) == 0 {
		return nil, nil
	}
	configs, err := c.topicConfigs(ctx, slices.Sorted(maps.Keys(topics)), minInsync)
	if err != nil {
		return nil, err
	}
	var weak []WeakTopic
	for _, s := range specs {
		if t, ok := topics[s.Name]; ok {
			if w, ok := c.judge(s, t, cluster.Brokers, configs[s.Name]); ok {
				weak = append(weak, w)
			}
		}
	}
	return weak, nil
}

// judge compares a topic with its spec.
func (c *Client) judge(s TopicSpec, t *metadata.ResponseTopic, brokers []metadata.ResponseBroker, config topicConfig) (WeakTopic, bool) {
	replicas := len(t.Partitions[0].ReplicaNodes)
	for i := range t.Partitions {
		replicas = min(replicas, len(t.Partitions[i].ReplicaNodes))
	}
	wantReplicas := max(s.replication(len(brokers)), replicas)
	insync := config.number(minInsync)
	wantInsync := minInsyncFor(wantReplicas)
	if own, err := strconv.Atoi(s.Config[minInsync]); err == nil {
		wantInsync = own
	}
	if replicas >= wantReplicas && insync >= wantInsync && insync <= replicas {
		return WeakTopic{}, false
	}
	if insync > replicas {
		wantInsync = minInsyncFor(replicas)
	}
	tell := func(replicas, insync int) string {
		return fmt.Sprintf("replication factor %d, %s=%d", replicas, minInsync, insync)
	}
	var commands []string
	server := strings.Join(c.cfg.Brokers, ",")
	if replicas < wantReplicas {
		commands = append(commands, fmt.Sprintf("kafka-reassign-partitions.sh --bootstrap-server %s --execute --reassignment-json-file <(echo '%s')",
			server, reassignment(t, brokers, wantReplicas)))
		wantInsync = minInsyncFor(wantReplicas)
	}
	if insync != wantInsync {
		commands = append(commands, fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%d",
			server, s.Name, minInsync, wantInsync))
	}
	return WeakTopic{
		Topic: s.Name, Have: tell(replicas, insync), Want: tell(wantReplicas, wantInsync), Command: strings.Join(commands, " && "),
	}, true
}

// reassignment is the plan for kafka-reassign-partitions.sh that gives each partition so many replicas, its present
// ones first. Where there are fewer brokers, it is what can be.
func reassignment(t *metadata.ResponseTopic, brokers []metadata.ResponseBroker, replicas int) string {
	type partition struct {
		Topic     string  `json:"topic"`
		Partition int32   `json:"partition"`
		Replicas  []int32 `json:"replicas"`
	}
	plan := struct {
		Version    int         `json:"version"`
		Partitions []partition `json:"partitions"`
	}{Version: 1}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		nodes := slices.Clone(p.ReplicaNodes)
		for n := range brokers { // each partition begins with another, to spread them
			id := brokers[(i+n)%len(brokers)].NodeID
			if len(nodes) < replicas && !slices.Contains(nodes, id) {
				nodes = append(nodes, id)
			}
		}
		plan.Partitions = append(plan.Partitions, partition{t.Name, p.PartitionIndex, nodes})
	}
	slices.SortFunc(plan.Partitions, func(a, b partition) int { return cmp.Compare(a.Partition, b.Partition) })
	out, _ := json.Marshal(plan) // strings and numbers always marshal
	return string(out)
}

// describe returns the cluster's brokers, and what it says of the topics.
func (c *Client) describe(ctx context.Context, topics []string) (*metadata.Response, error) {
	if topics == nil {
		topics = []string{} // nil would be all
	}
	m, err := c.ask(ctx, requestTimeout, &metadata.Request{TopicNames: topics})
	if err != nil {
		return nil, err
	}
	return m.(*metadata.Response), nil
}

// topicConfig is settings of a topic by name.
type topicConfig map[string]string

// number returns a setting, 0 if it is not known.
func (t topicConfig) number(name string) int {
	n, _ := strconv.Atoi(t[name])
	return n
}

// topicConfigs returns the named settings of topics that exist, defaults included.
func (c *Client) topicConfigs(ctx context.Context, topics []string, names ...string) (map[string]topicConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := &kafka.DescribeConfigsRequest{}
	for _, t := range topics {
		req.Resources = append(req.Resources, kafka.DescribeConfigRequestResource{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: t, ConfigNames: names,
		})
	}
	res, err := c.client.DescribeConfigs(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	out := map[string]topicConfig{}
	for _, r := range res.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("describe topic %s: %w", r.ResourceName, r.Error)
		}
		config := topicConfig{}
		for _, e := range r.ConfigEntries {
			config[e.ConfigName] = e.ConfigValue
		}
		out[r.ResourceName] = config
	}
	return out, nil
}

// topicLimits remembers max.message.bytes of topics that have refused a batch for its size. A limit that is raised
// later costs nothing but smaller batches; one that is lowered makes itself known. The zero value is ready.
type topicLimits struct {
	mu    sync.Mutex
	bytes map[string]int
}

// get returns the limit, 0 if it is not known.
func (l *topicLimits) get(topic string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes[topic]
}

// ask asks the cluster for the limit and remembers it. It is 0 if the cluster does not say.
func (l *topicLimits) ask(ctx context.Context, c *Client, topic string) int {
	configs, err := c.topicConfigs(ctx, []string{topic}, maxMessageBytes)
	if err != nil {
		return 0
	}
	limit := configs[topic].number(maxMessageBytes)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes == nil {
		l.bytes = map[string]int{}
	}
	l.bytes[topic] = limit
	return limit
}
