package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	watchGap   = time.Second     // how often a member compares the topics with what was shared out
	rejoinGap  = 3 * time.Second // how long a member that does not lead waits for the leader to notice
	memberWait = 500 * time.Millisecond
	leaveLimit = 2 * time.Second
)

// member keeps a session in its group: it joins, heartbeats, and joins again when the group or the topics change, while
// the work goes on. Its fields belong to its one goroutine; what others need to know stands in the session.
type member struct {
	s      *Session
	client *Client
	cfg    GroupConfig
	who    identity
	leads  bool
	owes   bool           // the last assignment takes partitions away, which others get when this member joins without them
	eager  bool           // the group's protocol makes members give up everything before they join again
	counts map[string]int // partitions by topic as they were shared out last
	joined time.Time      // when
	differ time.Time      // since when the topics have been other than counts; zero: they are not
	state  GroupState
}

func newMember(s *Session) *member {
	return &member{s: s, client: s.client, cfg: s.cfg, who: identity{instance: s.cfg.InstanceID}, state: GroupState{Group: s.cfg.Group}}
}

// setState passes the state on when it has changed.
func (m *member) setState(change func(*GroupState)) {
	old := m.state
	change(&m.state)
	if m.cfg.State != nil && (old.Member != m.state.Member || !slices.Equal(old.Missing, m.state.Missing)) {
		m.cfg.State(m.state)
	}
}

// run keeps the membership until ctx ends. The id and the generation outlive errors of the connection: the broker keeps
// them, too.
func (m *member) run(ctx context.Context) {
	if m.cfg.State != nil {
		m.cfg.State(m.state)
	}
	wait := 50 * time.Millisecond
	for ctx.Err() == nil {
		err := m.join(ctx)
		if err == nil {
			wait = 50 * time.Millisecond
			m.setState(func(s *GroupState) { s.Member = true })
			m.s.faults.Over(ctx, m.cfg.Log, "join", "consumer group joined again", "group", m.cfg.Group)
			err = m.stay(ctx)
		}
		if ctx.Err() != nil || err == nil || errors.Is(err, kafka.RebalanceInProgress) || errors.Is(err, kafka.MemberIDRequired) {
			continue
		}
		m.refused(ctx, err)
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, memberWait)
	}
}

// refused draws the conclusions from an error of the coordinator.
func (m *member) refused(ctx context.Context, err error) {
	switch {
	case errors.Is(err, kafka.FencedInstanceID):
		m.cfg.Log.ErrorContext(ctx, "another process is a member of the group under the same instance id; going on as a member without one",
			"group", m.cfg.Group, "instance", m.who.instance)
		m.who.instance = ""
		m.forget()
		return
	case errors.Is(err, kafka.UnknownMemberId):
		m.forget()
		m.cfg.Log.InfoContext(ctx, "the group has dropped this member; joining again", "group", m.cfg.Group)
		return
	case errors.Is(err, kafka.IllegalGeneration):
		if m.eager { // somebody else may have been given the partitions
			m.s.lose()
		}
		return
	}
	m.setState(func(s *GroupState) { s.Member = false })
	m.s.coordinator.forget()
	m.s.faults.Warn(ctx, m.cfg.Log, "join", "consumer group waits", "group", m.cfg.Group, "error", err)
}

// forget gives up the membership that the coordinator does not know any more, and all partitions with it.
func (m *member) forget() {
	m.setState(func(s *GroupState) { s.Member = false })
	m.who.member, m.who.generation = "", 0
	m.s.lose()
}

// join gets a place in the next generation, and the partitions of it.
func (m *member) join(ctx context.Context) error {
	if m.eager {
		m.s.revoke(nil)
		if err := m.givenUp(ctx); err != nil {
			return err
		}
	}
	metadata, err := m.subscription()
	if err != nil {
		return err
	}
	res, err := m.s.coordinator.ask(ctx, m.cfg.RebalanceTimeout+requestTimeout, &joinRequest{
		GroupID: m.cfg.Group, SessionTimeoutMS: int32(m.cfg.SessionTimeout.Milliseconds()), RebalanceTimeoutMS: int32(m.cfg.RebalanceTimeout.Milliseconds()),
		MemberID: m.who.member, GroupInstanceID: m.who.instance, ProtocolType: "consumer",
		Protocols: []joinProtocol{{cooperativeRange, metadata}, {eagerRange, metadata}},
	})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	joined := res.(*joinResponse)
	if errors.Is(codeErr(joined.ErrorCode), kafka.MemberIDRequired) {
		m.who.member = joined.MemberID
	}
	if err := m.s.coordinator.failed(joined.ErrorCode); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	m.who.member, m.who.generation = joined.MemberID, joined.GenerationID
	m.leads = joined.LeaderID == joined.MemberID
	req := &syncRequest{GroupID: m.cfg.Group, GenerationID: m.who.generation, MemberID: m.who.member, GroupInstanceID: m.who.instance}
	if m.leads {
		if req.Assignments, err = m.lead(ctx, joined.Members); err != nil {
			return err
		}
	}
	res, err = m.s.coordinator.ask(ctx, m.cfg.RebalanceTimeout+requestTimeout, req)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	synced := res.(*syncResponse)
	if err := m.s.coordinator.failed(synced.ErrorCode); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	mine, err := m.read(ctx, synced.Assignment)
	if err != nil {
		return err
	}
	m.eager = joined.ProtocolName == eagerRange
	m.joined, m.differ = time.Now(), time.Time{}
	m.owes = m.s.assign(m.who, mine)
	m.cfg.Log.DebugContext(ctx, "consumer group assigned", "group", m.cfg.Group, "generation", m.who.generation, "partitions", len(mine), "leader", m.leads)
	return nil
}

// stay heartbeats until it is time to join again, which is nil, or the membership is over or in doubt.
func (m *member) stay(ctx context.Context) error {
	beat := time.NewTicker(m.cfg.Heartbeat)
	defer beat.Stop()
	watch := time.NewTicker(watchGap)
	defer watch.Stop()
	var lastWarn bool
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.s.free: // what others are to have was given up
			if m.owes && m.s.settled() {
				return nil
			}
		case <-watch.C:
			if m.s.overdue(m.cfg.RebalanceTimeout) || m.changed(ctx) || m.owes && m.s.settled() {
				return nil
			}
		case <-beat.C:
			err := m.heartbeat(ctx)
			switch {
			case errors.Is(err, kafka.RebalanceInProgress):
				if m.s.settled() {
					return nil // else the partitions on their way out first
				}
			case errors.Is(err, kafka.UnknownMemberId), errors.Is(err, kafka.FencedInstanceID), errors.Is(err, kafka.IllegalGeneration):
				return err
			case err != nil && ctx.Err() == nil:
				lastWarn = true
				m.setState(func(s *GroupState) { s.Member = false })
				m.s.coordinator.forget()
				m.s.faults.Warn(ctx, m.cfg.Log, "heartbeat", "the group's coordinator does not answer", "group", m.cfg.Group, "error", err)
			case err == nil && lastWarn:
				lastWarn = false
				m.setState(func(s *GroupState) { s.Member = true })
				m.s.faults.Over(ctx, m.cfg.Log, "heartbeat", "the group's coordinator answers again", "group", m.cfg.Group)
			}
		}
	}
}

func (m *member) heartbeat(ctx context.Context) error {
	res, err := m.s.coordinator.ask(ctx, max(m.cfg.SessionTimeout/3, m.cfg.Heartbeat), &heartbeatRequest{
		GroupID: m.cfg.Group, GenerationID: m.who.generation, MemberID: m.who.member, GroupInstanceID: m.who.instance,
	})
	if err != nil {
		return err
	}
	return m.s.coordinator.failed(res.(*heartbeatResponse).ErrorCode)
}

// givenUp waits until the work has given up what was revoked, and keeps the membership alive meanwhile.
func (m *member) givenUp(ctx context.Context) error {
	beat := time.NewTicker(m.cfg.Heartbeat)
	defer beat.Stop()
	limit := m.cfg.RebalanceTimeout * 3 / 4 // the rest is for the join
	for !m.s.settled() && !m.s.overdue(limit) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.s.free:
		case <-beat.C:
			if err := m.heartbeat(ctx); errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.FencedInstanceID) {
				return err
			}
		}
	}
	return nil
}

// changed tells whether the topics are other than the leader knew: then the group must share them out again. The leader
// joins again at once; the others give it some time, and do it themselves if it does not, as a leader that was
// restarted under its instance id does not.
func (m *member) changed(ctx context.Context) bool {
	counts, err := m.client.partitionCounts(ctx, m.cfg.Topics)
	if err != nil {
		return false
	}
	var missing []string
	same := true
	for _, t := range m.cfg.Topics {
		if counts[t] == 0 {
			missing = append(missing, t)
			m.s.vanished(t)
			m.s.faults.Warn(ctx, m.cfg.Log, "topic "+t, "topic does not exist; the group consumes its other topics", "group", m.cfg.Group, "topic", t)
		} else {
			m.s.faults.Over(ctx, m.cfg.Log, "topic "+t, "topic exists now", "group", m.cfg.Group, "topic", t)
		}
		same = same && counts[t] == m.counts[t]
	}
	m.setState(func(s *GroupState) { s.Missing = missing })
	switch {
	case same || !m.s.settled():
		m.differ = time.Time{}
		return false
	case m.differ.IsZero():
		m.differ = time.Now()
	}
	return m.leads || time.Since(m.differ) >= rejoinGap
}

// leave tells the coordinator that the member goes, also a static one: a restart that is meant to keep the partitions
// comes without.
func (m *member) leave() {
	m.s.end()
	if m.who.member == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveLimit)
	defer cancel()
	res, err := m.s.coordinator.ask(ctx, leaveLimit, &leaveRequest{GroupID: m.cfg.Group, Members: []leaveMember{{m.who.member, m.who.instance}}})
	if err == nil {
		err = codeErr(res.(*leaveResponse).ErrorCode)
	}
	if err != nil {
		m.cfg.Log.Debug("group not left; the session timeout ends the membership", "group", m.cfg.Group, "error", err)
	}
}

// pause waits, and returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
