package broker

import (
	"context"
	"maps"
	"time"
)

// FetchSession is a fetch loop's session, to test it alone.
type FetchSession struct{ fetchSession }

// Forget makes the broker's memory and the session's differ, as after a restart of the broker.
func (s *FetchSession) Forget() { s.id += 1000 }

// Told is how many of the partitions the next request would name.
func (s *FetchSession) Told(from map[TopicPartition]int64) int { return len(s.partitions(from)) }

// Fetch fetches once, within a session, and moves from on.
func (s *FetchSession) Fetch(ctx context.Context, c *Client, from map[TopicPartition]int64) ([]Record, error) {
	f, err := c.fetch(ctx, from, 20*time.Millisecond, &s.fetchSession)
	maps.Copy(from, f.next)
	return f.records, err
}
