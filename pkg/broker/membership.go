package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
)

// The requests of group membership, each in the last version before the flexible ones, which is the first or a later
// one that knows group.instance.id (KIP-345). kafka-go's own types describe some flexible versions wrongly, send a
// heartbeat to any broker, and look the coordinator up before every request; these take the place of kafka-go's in the
// process, and go to a broker that [coordinator] remembers.
func init() {
	protocol.Register(&joinRequest{}, &joinResponse{})
	protocol.Register(&syncRequest{}, &syncResponse{})
	protocol.Register(&heartbeatRequest{}, &heartbeatResponse{})
	protocol.Register(&leaveRequest{}, &leaveResponse{})
	protocol.Register(&commitRequest{}, &commitResponse{})
}

// toBroker sends a request to one broker.
type toBroker struct{ id int32 }

// Broker implements protocol.BrokerMessage.
func (t *toBroker) Broker(c protocol.Cluster) (protocol.Broker, error) {
	b, ok := c.Brokers[t.id]
	if !ok {
		return protocol.Broker{ID: -1}, fmt.Errorf("broker %d is not in the cluster: %w", t.id, kafka.GroupCoordinatorNotAvailable)
	}
	return b, nil
}

func (t *toBroker) send(id int32) { t.id = id }

type joinRequest struct {
	toBroker           `kafka:"-"`
	GroupID            string         `kafka:"min=v5,max=v5"`
	SessionTimeoutMS   int32          `kafka:"min=v5,max=v5"`
	RebalanceTimeoutMS int32          `kafka:"min=v5,max=v5"`
	MemberID           string         `kafka:"min=v5,max=v5"`
	GroupInstanceID    string         `kafka:"min=v5,max=v5,nullable"`
	ProtocolType       string         `kafka:"min=v5,max=v5"`
	Protocols          []joinProtocol `kafka:"min=v5,max=v5"`
}

type joinProtocol struct {
	Name     string `kafka:"min=v5,max=v5"`
	Metadata []byte `kafka:"min=v5,max=v5"`
}

func (*joinRequest) ApiKey() protocol.ApiKey { return protocol.JoinGroup }

type joinResponse struct {
	ThrottleTimeMS int32        `kafka:"min=v5,max=v5"`
	ErrorCode      int16        `kafka:"min=v5,max=v5"`
	GenerationID   int32        `kafka:"min=v5,max=v5"`
	ProtocolName   string       `kafka:"min=v5,max=v5"`
	LeaderID       string       `kafka:"min=v5,max=v5"`
	MemberID       string       `kafka:"min=v5,max=v5"`
	Members        []joinMember `kafka:"min=v5,max=v5"`
}

type joinMember struct {
	MemberID        string `kafka:"min=v5,max=v5"`
	GroupInstanceID string `kafka:"min=v5,max=v5,nullable"`
	Metadata        []byte `kafka:"min=v5,max=v5"`
}

func (*joinResponse) ApiKey() protocol.ApiKey { return protocol.JoinGroup }

type syncRequest struct {
	toBroker        `kafka:"-"`
	GroupID         string           `kafka:"min=v3,max=v3"`
	GenerationID    int32            `kafka:"min=v3,max=v3"`
	MemberID        string           `kafka:"min=v3,max=v3"`
	GroupInstanceID string           `kafka:"min=v3,max=v3,nullable"`
	Assignments     []syncAssignment `kafka:"min=v3,max=v3"`
}

type syncAssignment struct {
	MemberID   string `kafka:"min=v3,max=v3"`
	Assignment []byte `kafka:"min=v3,max=v3"`
}

func (*syncRequest) ApiKey() protocol.ApiKey { return protocol.SyncGroup }

type syncResponse struct {
	ThrottleTimeMS int32  `kafka:"min=v3,max=v3"`
	ErrorCode      int16  `kafka:"min=v3,max=v3"`
	Assignment     []byte `kafka:"min=v3,max=v3"`
}

func (*syncResponse) ApiKey() protocol.ApiKey { return protocol.SyncGroup }

type heartbeatRequest struct {
	toBroker        `kafka:"-"`
	GroupID         string `kafka:"min=v3,max=v3"`
	GenerationID    int32  `kafka:"min=v3,max=v3"`
	MemberID        string `kafka:"min=v3,max=v3"`
	GroupInstanceID string `kafka:"min=v3,max=v3,nullable"`
}

func (*heartbeatRequest) ApiKey() protocol.ApiKey { return protocol.Heartbeat }

type heartbeatResponse struct {
	ThrottleTimeMS int32 `kafka:"min=v3,max=v3"`
	ErrorCode      int16 `kafka:"min=v3,max=v3"`
}

func (*heartbeatResponse) ApiKey() protocol.ApiKey { return protocol.Heartbeat }

type leaveRequest struct {
	toBroker `kafka:"-"`
	GroupID  string        `kafka:"min=v3,max=v3"`
	Members  []leaveMember `kafka:"min=v3,max=v3"`
}

type leaveMember struct {
	MemberID        string `kafka:"min=v3,max=v3"`
	GroupInstanceID string `kafka:"min=v3,max=v3,nullable"`
}

func (*leaveRequest) ApiKey() protocol.ApiKey { return protocol.LeaveGroup }

type leaveResponse struct {
	ThrottleTimeMS int32         `kafka:"min=v3,max=v3"`
	ErrorCode      int16         `kafka:"min=v3,max=v3"`
	Members        []leaveResult `kafka:"min=v3,max=v3"`
}

type leaveResult struct {
	MemberID        string `kafka:"min=v3,max=v3"`
	GroupInstanceID string `kafka:"min=v3,max=v3,nullable"`
	ErrorCode       int16  `kafka:"min=v3,max=v3"`
}

func (*leaveResponse) ApiKey() protocol.ApiKey { return protocol.LeaveGroup }

type commitRequest struct {
	toBroker        `kafka:"-"`
	GroupID         string        `kafka:"min=v7,max=v7"`
	GenerationID    int32         `kafka:"min=v7,max=v7"`
	MemberID        string        `kafka:"min=v7,max=v7"`
	GroupInstanceID string        `kafka:"min=v7,max=v7,nullable"`
	Topics          []commitTopic `kafka:"min=v7,max=v7"`
}

type commitTopic struct {
	Name       string            `kafka:"min=v7,max=v7"`
	Partitions []commitPartition `kafka:"min=v7,max=v7"`
}

type commitPartition struct {
	Partition   int32  `kafka:"min=v7,max=v7"`
	Offset      int64  `kafka:"min=v7,max=v7"`
	LeaderEpoch int32  `kafka:"min=v7,max=v7"`
	Metadata    string `kafka:"min=v7,max=v7,nullable"`
}

func (*commitRequest) ApiKey() protocol.ApiKey { return protocol.OffsetCommit }

type commitResponse struct {
	ThrottleTimeMS int32                 `kafka:"min=v7,max=v7"`
	Topics         []commitResponseTopic `kafka:"min=v7,max=v7"`
}

type commitResponseTopic struct {
	Name       string         `kafka:"min=v7,max=v7"`
	Partitions []commitResult `kafka:"min=v7,max=v7"`
}

type commitResult struct {
	Partition int32 `kafka:"min=v7,max=v7"`
	ErrorCode int16 `kafka:"min=v7,max=v7"`
}

func (*commitResponse) ApiKey() protocol.ApiKey { return protocol.OffsetCommit }

// groupRequest is a request for a group's coordinator.
type groupRequest interface {
	protocol.Message
	send(broker int32)
}

// coordinator talks to the broker that coordinates one group. It is safe for concurrent use; a JoinGroup, which waits
// for the other members, has a connection of its own and keeps nobody waiting.
type coordinator struct {
	client *Client
	group  string

	mu     sync.Mutex
	broker int32
	known  bool
}

// ask sends a request to the coordinator, looks it up if it is not known, and returns the answer whatever its error
// code.
func (c *coordinator) ask(ctx context.Context, timeout time.Duration, req groupRequest) (protocol.Message, error) {
	c.mu.Lock()
	broker, known := c.broker, c.known
	c.mu.Unlock()
	if !known {
		m, err := c.client.ask(ctx, requestTimeout, &findcoordinator.Request{Key: c.group})
		if err != nil {
			return nil, fmt.Errorf("find the coordinator of %s: %w", c.group, err)
		}
		res := m.(*findcoordinator.Response)
		if err := codeErr(res.ErrorCode); err != nil {
			return nil, fmt.Errorf("find the coordinator of %s: %w", c.group, err)
		}
		broker = res.NodeID
		c.mu.Lock()
		c.broker, c.known = broker, true
		c.mu.Unlock()
	}
	req.send(broker)
	m, err := c.client.ask(ctx, timeout, req)
	if err != nil {
		c.forget()
	}
	return m, err
}

// forget makes the next request look the coordinator up again.
func (c *coordinator) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = false
}

// failed returns the error of a code, and forgets the coordinator if the code says that it is another by now.
func (c *coordinator) failed(code int16) error {
	err := codeErr(code)
	if errors.Is(err, kafka.NotCoordinatorForGroup) || errors.Is(err, kafka.GroupCoordinatorNotAvailable) {
		c.forget()
	}
	return err
}

// identity is what a member shows the coordinator. The zero generation belongs to nobody: commits outside of a group
// have -1.
type identity struct {
	member     string
	instance   string // group.instance.id; "": a dynamic member
	generation int32
}

// outsider commits for a group that has no members.
var outsider = identity{generation: -1}

// commit stores offsets, and returns the errors of single partitions apart.
func (c *coordinator) commit(ctx context.Context, who identity, offsets map[TopicPartition]epochOffset) (map[TopicPartition]error, error) {
	req := &commitRequest{GroupID: c.group, GenerationID: who.generation, MemberID: who.member, GroupInstanceID: who.instance}
	for t, parts := range perTopic(maps.Keys(offsets), func(tp TopicPartition) commitPartition {
		return commitPartition{Partition: int32(tp.Partition), Offset: offsets[tp].offset, LeaderEpoch: offsets[tp].epoch}
	}) {
		req.Topics = append(req.Topics, commitTopic{Name: t, Partitions: parts})
	}
	m, err := c.ask(ctx, requestTimeout, req)
	if err != nil {
		return nil, err
	}
	failed := map[TopicPartition]error{}
	for _, t := range m.(*commitResponse).Topics {
		for _, p := range t.Partitions {
			if err := c.failed(p.ErrorCode); err != nil {
				failed[TopicPartition{t.Name, int(p.Partition)}] = err
			}
		}
	}
	return failed, nil
}
