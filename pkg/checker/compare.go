package checker

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

const (
	endOfMs = int64(1) << 48       // there is no later id
	allMs   = int64(1) << 43       // a width that leaves a few buckets of all time
	firstMs = int64(1577836800000) // 2020: no UUIDv7 is older

	across   = 128 // buckets that a period is compared in first: a few tens of kilobytes
	leafRows = 256 // a span with no more is listed
	split    = 64  // buckets that a longer one is split into
)

// period is a span and the width of the buckets that it is compared in first.
type period struct {
	facts.Span
	widthMs int64
}

// periods are what a check of the orders since a moment compares: what is old enough to be judged. Without such a
// moment it is what there is since the first thing that the first service has, and also what no service makes, or
// should: ids of earlier times, of times to come, and of no time at all.
func periods(ctx context.Context, origin *Peer, since, until, now time.Time) ([]period, error) {
	if !since.IsZero() {
		return []period{evenly(since, until)}, nil
	}
	first, err := origin.first(ctx, facts.Between(time.UnixMilli(firstMs), until))
	if err != nil {
		return nil, err
	}
	return []period{
		{facts.Span{To: facts.FirstOf(first)}, allMs},
		evenly(first, until),
		{facts.Span{From: facts.FirstOf(now.Add(24 * time.Hour)), To: uuid.Max}, allMs},
	}, nil
}

// evenly is a period in so many buckets that few rows are in one that differs, and few bytes in all that do not.
func evenly(from, until time.Time) period {
	return period{facts.Between(from, until), max(1, until.Sub(from).Milliseconds()/across)}
}

// comparison looks for the things of which the services do not hold what they must.
type comparison struct {
	cfg     Config
	peers   []*Peer
	found   func(context.Context, uuid.UUID, Held) error // is called for each, by id
	checked int64                                        // ids that were compared, at least
}

// compare compares a period and goes down into the buckets that differ.
func (c *comparison) compare(ctx context.Context, p period) error {
	buckets, err := c.digest(ctx, p)
	if err != nil {
		return err
	}
	for _, b := range buckets {
		c.checked += b.rows()
	}
	return c.descend(ctx, p, buckets)
}

// descend lists the buckets that differ and are short, and splits those that are long.
func (c *comparison) descend(ctx context.Context, p period, buckets []bucket) error {
	for _, b := range buckets {
		if !c.cfg.differsIn(b.Buckets) {
			continue
		}
		part := period{p.part(b.start), max(1, p.widthMs/split)}
		if p.widthMs == 1 || b.rows() <= leafRows {
			if err := c.list(ctx, part.Span); err != nil {
				return err
			}
			continue
		}
		parts, err := c.digest(ctx, part)
		if err != nil {
			return err
		}
		if err := c.descend(ctx, part, parts); err != nil {
			return err
		}
	}
	return nil
}

// part is the part of a period that is in its bucket with this start.
func (p period) part(start int64) facts.Span {
	span := p.Span
	if from := facts.FirstOf(time.UnixMilli(start)); before(span.From, from) {
		span.From = from
	}
	if end := start + p.widthMs; end < endOfMs {
		if to := facts.FirstOf(time.UnixMilli(end)); before(to, span.To) {
			span.To = to
		}
	}
	return span
}

// bucket is the services' digest of a span.
type bucket struct {
	start int64
	Buckets
}

// differsIn tells whether a span needs to be looked into, by any rule.
func (c Config) differsIn(b Buckets) bool {
	return slices.ContainsFunc(c.Rules, func(r Rule) bool { return r.DiffersIn(b) })
}

// differs tells whether there is something to judge at a thing, by any rule. It is what a difference of digests comes
// from.
func (c Config) differs(h Held) bool {
	return slices.ContainsFunc(c.Rules, func(r Rule) bool { return r.Differs(h) })
}

// rows is how many ids there are at least.
func (b bucket) rows() (n int64) {
	for _, one := range b.digests {
		n = max(n, one.Rows)
	}
	return n
}

// digest asks all services. A bucket that is empty at all of them is left out.
func (c *comparison) digest(ctx context.Context, p period) ([]bucket, error) {
	answers, err := ask(ctx, c.peers, func(ctx context.Context, peer *Peer) ([]facts.Bucket, error) {
		return peer.digest(ctx, p.Span, p.widthMs)
	})
	if err != nil {
		return nil, err
	}
	empty := facts.Bucket{Hash: facts.Hex(0)}
	byStart := map[int64]*bucket{}
	for i, answer := range answers {
		for _, one := range answer {
			b := byStart[one.Start]
			if b == nil {
				b = &bucket{one.Start, Buckets{c.cfg.Services, slices.Repeat([]facts.Bucket{empty}, len(c.peers))}}
				byStart[one.Start] = b
			}
			b.digests[i] = one
		}
	}
	all := make([]bucket, 0, len(byStart))
	for _, start := range slices.Sorted(maps.Keys(byStart)) {
		all = append(all, *byStart[start])
	}
	return all, nil
}

// list compares a span id by id.
func (c *comparison) list(ctx context.Context, span facts.Span) error {
	answers, err := ask(ctx, c.peers, func(ctx context.Context, p *Peer) ([]facts.Fact, error) { return p.list(ctx, span) })
	if err != nil {
		return err
	}
	held := c.cfg.join(answers)
	for _, id := range sorted(held) {
		if c.cfg.differs(held[id]) {
			if err := c.found(ctx, id, held[id]); err != nil {
				return err
			}
		}
	}
	return nil
}

// look asks what is held of some ids.
func (c Config) look(ctx context.Context, peers []*Peer, ids []uuid.UUID) (map[uuid.UUID]Held, error) {
	answers, err := ask(ctx, peers, func(ctx context.Context, p *Peer) ([]facts.Fact, error) { return p.get(ctx, ids) })
	if err != nil {
		return nil, err
	}
	held := c.join(answers)
	for _, id := range ids {
		if held[id] == nil {
			held[id] = c.holdings()
		}
	}
	return held, nil
}

// join puts together what the services hold, by id.
func (c Config) join(answers [][]facts.Fact) map[uuid.UUID]Held {
	held := make(map[uuid.UUID]Held, len(answers[0]))
	for i, answer := range answers {
		for j := range answer {
			f := &answer[j]
			if held[f.ID] == nil {
				held[f.ID] = c.holdings()
			}
			held[f.ID][i].Fact = f
		}
	}
	return held
}

// holdings is what the services hold of a thing that none of them knows.
func (c Config) holdings() Held {
	h := make(Held, len(c.Services))
	for i, s := range c.Services {
		h[i] = Holding{Service: s.Name, Name: s.Holds}
	}
	return h
}

func sorted(held map[uuid.UUID]Held) []uuid.UUID {
	return slices.SortedFunc(maps.Keys(held), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}

func before(a, b uuid.UUID) bool { return bytes.Compare(a[:], b[:]) < 0 }
