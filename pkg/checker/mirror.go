package checker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/converge-dev/converge/pkg/facts"
)

// Mirror is a read side that shows what others hold, such as a search: it is to show of each thing what its owner
// holds, in the same version. Owner and read side tell it by [facts.Shown]. Comparing them is a part of a check of
// everything, by the mirror's name, and so are its kinds: search-missing, search-stale and search-extra.
type Mirror struct {
	Name string // of the read side
	URL  string
	Of   []Mirrored
}

// Mirrored is something that a mirror shows. The owner need not be one of [Config.Services].
type Mirrored struct {
	Set   string // what it is on both sides: [facts.Shown.Of]
	Thing string // what one is called, before the id in subjects: "product" in product/p-1
	Owner string // the service's name
	URL   string
}

func (m Mirror) missing() Kind { return Kind(m.Name + "-missing") } // the owner holds it, and it is not shown
func (m Mirror) stale() Kind   { return Kind(m.Name + "-stale") }   // it is shown as something else than the owner holds
func (m Mirror) extra() Kind   { return Kind(m.Name + "-extra") }   // it is shown, and the owner does not hold it

func (m Mirror) kinds() []Kind { return []Kind{m.missing(), m.stale(), m.extra()} }

func (m Mirror) part() Part { return Part(m.Name) }

// Actions of repairs of mirrors.
const actionTellAgain = "tell again" // have the owner publish it once more

// askAgainAfter is how long to wait between two questions for how far owner and mirror are.
const askAgainAfter = 100 * time.Millisecond

// image is one thing as its owner holds it and as the mirror shows it; nil: it does not.
type image struct{ held, shown *facts.ShownThing }

func (i image) id() string {
	if i.held != nil {
		return i.held.ID
	}
	return i.shown.ID
}

func (i image) same(o image) bool { return equal(i.held, o.held) && equal(i.shown, o.shown) }

func equal(a, b *facts.ShownThing) bool { return a == b || a != nil && b != nil && *a == *b }

// mirrors compares all mirrors with the owners of what they show. Each is a part of its own. The first error is
// returned.
func (k *check) mirrors(ctx context.Context) (first error) {
	for _, m := range k.cfg.Mirrors {
		err := k.part(m.part(), func(ctx context.Context) error { return k.mirror(ctx, m) })(ctx)
		first = cmp.Or(first, err)
	}
	return first
}

// mirror compares a mirror with the owners of what it shows, and has them tell again what is missing or stale.
func (k *check) mirror(ctx context.Context, m Mirror) (first error) {
	for _, of := range m.Of {
		if err := k.reflect(ctx, m, of); err != nil {
			first = cmp.Or(first, err)
		}
	}
	return first
}

func (k *check) reflect(ctx context.Context, m Mirror, of Mirrored) error {
	mirror := newPeer(Service{Name: m.Name, URL: m.URL}, k.cfg.HTTP, &k.meter)
	owner := newPeer(Service{Name: of.Owner, URL: of.URL}, k.cfg.HTTP, &k.meter)
	images, held, err := k.images(ctx, owner, mirror, of.Set)
	if err != nil || len(images) == 0 {
		return err
	}
	found := make([]Finding, len(images))
	due := 0
	for i, one := range images {
		if found[i] = m.finding(of, one); found[i].Repair.State == Planned {
			due++
		}
	}
	limit := max(k.cfg.BrakeFloor, int(k.cfg.BrakeShare*float64(held)))
	if len(images) == maxFindings && due > 0 { // there may be more
		limit = min(limit, due-1)
	}
	k.brake(due, limit, fmt.Sprintf("of %d %s that %s shows", held, of.Set, m.Name))
	if why := k.doubts(of.Owner); why != "" {
		for i := range found {
			if r := &found[i].Repair; r.State == Planned && !k.held() {
				r.Detail = why
			}
		}
	} else {
		err = k.tellAgain(ctx, owner, images, found)
	}
	k.others = append(k.others, found...)
	return err
}

// doubts says why an owner is not to tell of what it holds: its own books are not known to be right. What was told of a
// row that has another's name stays in the topics, for no event takes it back. Empty: there is no reason.
func (k *check) doubts(owner string) string {
	i := slices.IndexFunc(k.cfg.Services, func(s Service) bool { return s.Name == owner })
	switch {
	case i < 0:
	case slices.ContainsFunc(k.report.Failed, func(f Failure) bool { return f.Part == AuditOf(owner) }):
		return "not yet: a part of the check failed that it depends on"
	case slices.ContainsFunc(k.others, func(f Finding) bool {
		return k.cfg.Services[i].audited(f.Kind).Kind == f.Kind && f.Repair.State != Done
	}):
		return "not yet: what " + owner + " finds with itself comes first"
	}
	return ""
}

// images lists what a mirror shows as something else than its owner holds, though it has heard all that was to tell of
// it; the first ones, and how many things there are. What differs may be on its way, so it is looked at twice. Between
// the two all is waited for that was told before the first: what had the owner then was published and heard, so what is
// still the same is wrong. No clock is asked where nothing waits; otherwise what waits must be younger than the first
// look, by the grace.
func (k *check) images(ctx context.Context, owner, mirror *Peer, set string) (images []image, held int64, err error) {
	buckets, held, err := differingBuckets(ctx, owner, mirror, set)
	if err != nil || len(buckets) == 0 {
		return nil, held, err
	}
	began := time.Now()
	first, err := differing(ctx, owner, mirror, set, buckets)
	if err != nil || len(first) == 0 {
		return nil, held, err
	}
	if err := k.heard(ctx, owner, mirror, began); err != nil {
		return nil, held, err
	}
	second, err := differing(ctx, owner, mirror, set, buckets)
	if err != nil {
		return nil, held, err
	}
	before := map[string]image{}
	for _, one := range first {
		before[one.id()] = one
	}
	return slices.DeleteFunc(second, func(one image) bool {
		was, ok := before[one.id()]
		return !ok || !was.same(one)
	}), held, nil
}

// heard waits until the mirror has heard what its owner had to tell at a moment. Where that takes long it fails: what
// differs cannot be judged.
func (k *check) heard(ctx context.Context, owner, mirror *Peer, moment time.Time) error {
	for {
		asked := time.Now()
		var unpublished, unhandled int64
		for range 2 { // what left the outbox before it was asked for in the first round is found in Kafka in the second
			flow, err := ask(ctx, []*Peer{owner, mirror}, func(ctx context.Context, p *Peer) (facts.Flow, error) { return p.flow(ctx) })
			if err != nil {
				return err
			}
			if flow[0].Unpublished > 0 {
				unpublished = max(unpublished, flow[0].UnpublishedMs, 1)
			}
			unhandled = max(unhandled, flow[1].UnhandledMs)
		}
		lag := time.Duration(unpublished+unhandled) * time.Millisecond
		switch {
		case lag == 0, asked.Add(-lag - k.cfg.Grace).After(moment):
			return nil
		case time.Since(moment) > 2*k.cfg.Grace+time.Second:
			return &ServiceError{mirror.name, fmt.Errorf("it shows something else than %s holds, and has not heard all that there is to tell, the oldest for %s: not judged", owner.name, lag)}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(askAgainAfter):
		}
	}
}

// finding says what is wrong with a thing, and whether its owner can put it right by telling of it again: who shows a
// later version would not listen.
func (m Mirror) finding(of Mirrored, i image) Finding {
	f := Finding{Subject: of.Thing + "/" + i.id(), Repair: Repair{Action: actionTellAgain, State: Planned}}
	toPerson := func(advice string) { f.Repair = Repair{Action: actionOperator, State: None, Detail: advice} }
	rebuild := "converge rebuild " + m.Name
	switch {
	case i.shown == nil:
		f.Kind, f.Detail = m.missing(), fmt.Sprintf("%s holds version %d of it, and %s does not show it", of.Owner, i.held.Version, m.Name)
	case i.held == nil:
		f.Kind, f.Detail = m.extra(), fmt.Sprintf("%s shows version %d of it, and %s does not hold it", m.Name, i.shown.Version, of.Owner)
		toPerson("No event says that something is gone. If its row was lost, put it back. If only " + m.Name + " has it: " + rebuild + ". If the topics tell of it, too, it has to be deleted from the database of " + m.Name)
	case i.shown.Version > i.held.Version:
		f.Kind, f.Detail = m.stale(), fmt.Sprintf("%s shows version %d of it, and %s holds version %d", m.Name, i.shown.Version, of.Owner, i.held.Version)
		toPerson("If the database of " + of.Owner + " was restored: converge restored " + of.Owner + ". If not: " + rebuild)
	case i.shown.Version < i.held.Version:
		f.Kind, f.Detail = m.stale(), fmt.Sprintf("%s shows version %d of it, and %s holds version %d", m.Name, i.shown.Version, of.Owner, i.held.Version)
	default:
		f.Kind, f.Detail = m.stale(), fmt.Sprintf("%s shows version %d of it as something else than %s holds", m.Name, i.shown.Version, of.Owner)
	}
	return f
}

// tellAgain has the owner publish what is missing or stale once more.
func (k *check) tellAgain(ctx context.Context, owner *Peer, images []image, found []Finding) error {
	lost := 0
	for i := range found {
		f := &found[i]
		switch {
		case f.Repair.State != Planned || k.held():
			continue
		case k.left == 0:
			f.Repair.Detail = fmt.Sprintf("not yet: one check makes %d repairs", k.cfg.MaxRepairs)
			continue
		case lost == maxLost:
			f.Repair.Detail = "not yet: " + owner.name + " does not answer"
			continue
		}
		end, err := k.begin(ctx, *f)
		if err != nil {
			return err
		}
		var out struct {
			Told int `json:"told"`
		}
		err = owner.call(ctx, http.MethodPost, "/told-again", map[string]any{"ids": []string{images[i].id()}}, &out)
		no, refused := errors.AsType[*Refusal](err)
		if lost++; err == nil || refused {
			lost = 0
		}
		switch {
		case refused && no.Status == http.StatusConflict:
			f.Repair.State, f.Repair.Detail = Refused, no.Error()
		case err != nil:
			f.Repair.State, f.Repair.Detail = Failed, err.Error()
		case out.Told == 0:
			f.Repair.State, f.Repair.Detail = Failed, "changed meanwhile, the next check looks again: "+owner.name+" does not hold it any more"
		default:
			f.Repair.State = Done
		}
		end(f.Repair, out)
		k.left--
		k.cfg.Log.InfoContext(ctx, "told again", "kind", f.Kind, "subject", f.Subject, "state", f.Repair.State, "detail", f.Repair.Detail, "was", f.Detail, "by", k.By)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// differingBuckets compares the digests of an owner and its mirror, and tells how many things either has at least.
func differingBuckets(ctx context.Context, owner, mirror *Peer, set string) (buckets []int, things int64, err error) {
	answers, err := ask(ctx, []*Peer{owner, mirror}, func(ctx context.Context, p *Peer) (all [facts.ShownBuckets]facts.ShownBucket, err error) {
		var d facts.ShownDigest
		if err := p.Read(ctx, http.MethodGet, "/facts/documents/digest?"+url.Values{"of": {set}}.Encode(), nil, &d); err != nil {
			return all, err
		}
		for _, b := range d.Buckets {
			if b.Bucket < 0 || b.Bucket >= facts.ShownBuckets || d.Of != set {
				return all, &ServiceError{p.name, fmt.Errorf("%s tells of %s, bucket %d, and was asked for %s", p.url, d.Of, b.Bucket, set)}
			}
			all[b.Bucket] = b
			p.meter.rows.Add(b.Count)
		}
		return all, nil
	})
	if err != nil {
		return nil, 0, err
	}
	var counts [2]int64
	for b := range facts.ShownBuckets {
		held, shown := answers[0][b], answers[1][b]
		if held != shown {
			buckets = append(buckets, b)
		}
		counts[0] += held.Count
		counts[1] += shown.Count
	}
	return buckets, max(counts[0], counts[1]), nil
}

// differing lists what owner and mirror hold differently in some buckets, by id, up to [maxFindings]. Both tell in the
// order of ids, so no more than a page of each is in memory.
func differing(ctx context.Context, owner, mirror *Peer, set string, buckets []int) (found []image, err error) {
	names := make([]string, len(buckets))
	for i, b := range buckets {
		names[i] = strconv.Itoa(b)
	}
	q := url.Values{"of": {set}, "bucket": {strings.Join(names, ",")}, "limit": {strconv.Itoa(pageSize)}}
	held, shown := &things{peer: owner, query: q}, &things{peer: mirror, query: q}
	for len(found) < maxFindings {
		h, err := held.head(ctx)
		if err != nil {
			return nil, err
		}
		s, err := shown.head(ctx)
		if err != nil {
			return nil, err
		}
		switch {
		case h == nil && s == nil:
			return found, nil
		case s == nil || h != nil && h.ID < s.ID:
			found = append(found, image{held: h})
			held.pass()
		case h == nil || s.ID < h.ID:
			found = append(found, image{shown: s})
			shown.pass()
		default:
			if *h != *s {
				found = append(found, image{h, s})
			}
			held.pass()
			shown.pass()
		}
	}
	return found, nil
}

// things reads what a peer holds or shows, page by page.
type things struct {
	peer  *Peer
	query url.Values
	after string
	page  []facts.ShownThing
	ended bool
}

// head is the next thing; nil: there is none.
func (t *things) head(ctx context.Context) (*facts.ShownThing, error) {
	for len(t.page) == 0 && !t.ended {
		q := maps.Clone(t.query)
		if t.after != "" {
			q.Set("after", t.after)
		}
		var answer facts.ShownThings
		if err := t.peer.Read(ctx, http.MethodGet, "/facts/documents?"+q.Encode(), nil, &answer); err != nil {
			return nil, err
		}
		if answer.Next != "" && answer.Next <= t.after {
			return nil, &ServiceError{t.peer.name, fmt.Errorf("the next page of things begins after %q, not after %q", answer.Next, t.after)}
		}
		t.page, t.after, t.ended = answer.Things, answer.Next, answer.Next == ""
	}
	if len(t.page) == 0 {
		return nil, nil //nolint:nilnil // there is no error, and nothing more
	}
	return &t.page[0], nil
}

func (t *things) pass() { t.page = t.page[1:] }
