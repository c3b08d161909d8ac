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

// periods are what a check of the orders since a moment compares: what is old enough to be judged. Without such a moment it is what there is since the
// first order, and also what no order service makes, and nobody else should: ids of earlier times, of times to come, and of no time at all.
func periods(ctx context.Context, order *peer, since, until, now time.Time) ([]period, error) {
	if !since.IsZero() {
		return []period{evenly(since, until)}, nil
	}
	first, err := order.first(ctx, facts.Between(time.UnixMilli(firstMs), until))
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

// comparison looks for the orders of which the services do not hold the same.
type comparison struct {
	peers   three[*peer]
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
		if !b.differs() {
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

// bucket is the three services' digest of a span.
type bucket struct {
	start int64
	three[facts.Bucket]
}

// differs tells whether the span needs to be looked into: where two sets differ, or what is held of their members, or where an order is not settled,
// which no comparison of sets would show. Of services of an earlier version, which tell amounts in sum, two that are wrong by the same to either side pass.
func (b bucket) differs() bool {
	order, reservation, payment := b.three[orders], b.three[reservations], b.three[payments]
	return !order.Agrees(reservation) || !order.Agrees(payment) || order.Amount != payment.Amount || order.Open > 0
}

// rows is how many ids there are at least.
func (b bucket) rows() int64 { return max(b.three[0].Rows, b.three[1].Rows, b.three[2].Rows) }

// digest asks all three services. A bucket that is empty at all of them is left out.
func (c *comparison) digest(ctx context.Context, p period) ([]bucket, error) {
	answers, err := ask(ctx, c.peers, func(ctx context.Context, peer *peer) ([]facts.Bucket, error) {
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
				b = &bucket{one.Start, three[facts.Bucket]{empty, empty, empty}}
				byStart[one.Start] = b
			}
			b.three[i] = one
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
	answers, err := ask(ctx, c.peers, func(ctx context.Context, p *peer) ([]facts.Fact, error) { return p.list(ctx, span) })
	if err != nil {
		return err
	}
	held := join(answers)
	for _, id := range sorted(held) {
		if held[id].differs() {
			if err := c.found(ctx, id, held[id]); err != nil {
				return err
			}
		}
	}
	return nil
}

// look asks what is held of some ids.
func look(ctx context.Context, peers three[*peer], ids []uuid.UUID) (map[uuid.UUID]Held, error) {
	answers, err := ask(ctx, peers, func(ctx context.Context, p *peer) ([]facts.Fact, error) { return p.get(ctx, ids) })
	return join(answers), err
}

// join puts together what the services hold, by id.
func join(answers three[[]facts.Fact]) map[uuid.UUID]Held {
	held := make(map[uuid.UUID]Held, len(answers[orders]))
	for i, answer := range answers {
		for j := range answer {
			f := &answer[j]
			h := held[f.ID]
			switch i {
			case orders:
				h.Order = f
			case reservations:
				h.Reservation = f
			case payments:
				h.Payment = f
			}
			held[f.ID] = h
		}
	}
	return held
}

func sorted(held map[uuid.UUID]Held) []uuid.UUID {
	return slices.SortedFunc(maps.Keys(held), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}

func before(a, b uuid.UUID) bool { return bytes.Compare(a[:], b[:]) < 0 }
