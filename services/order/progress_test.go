package order

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/event"
)

// line is a line of a history.
func line(at time.Time, is Status, event, detail string) Entry {
	return Entry{At: at, Status: is, Event: event, Detail: detail}
}

// coded is the line with the code of its reason.
func coded(e Entry, code event.Code, parameters event.Parameters) Entry {
	e.Code, e.Parameters = code, parameters
	return e
}

func TestProgress(t *testing.T) {
	t.Parallel()
	pending := newOrder(uuid.Max, Draft{}, at(0)).Progress
	one, two := at(1), at(2)
	paid := outcome{event: "payment.completed", status: Confirmed, detail: "payment 1"}
	failed := outcome{event: "payment.failed", status: Cancelled, detail: "declined"}
	noStock := outcome{event: "inventory.reservation.failed", status: Cancelled, detail: "out of stock: p-1"}
	back := outcome{event: "inventory.released"}
	moneyBack := outcome{event: "payment.refunded", undoes: true, detail: "payment 1"}
	noMoney := outcome{event: "payment.refund.failed", undoes: true, detail: "frozen"}

	confirmed := Progress{Status: Confirmed, SettledAt: &one, History: []Entry{
		{At: at(0), Status: Pending, Event: "order.created"},
		{At: one, Status: Confirmed, Event: "payment.completed", Detail: "payment 1"},
	}}
	cancelled := Progress{Status: Cancelled, SettledAt: &one, Reason: "declined", History: []Entry{
		{At: at(0), Status: Pending, Event: "order.created"},
		{At: one, Status: Cancelled, Event: "payment.failed", Detail: "declined"},
	}}
	with := func(p Progress, e Entry) Progress {
		p.History = append(slices.Clip(p.History), e)
		return p
	}
	asked := with(cancelled, Entry{})
	asked.Reason, asked.History = "mistake", []Entry{pending.History[0], line(one, Cancelled, "order.cancel.requested", "mistake")}
	cancelling := Progress{Status: Cancelling, Reason: "mistake", History: append(slices.Clip(confirmed.History),
		line(one, Cancelling, "order.cancel.requested", "mistake"))}
	released := with(cancelling, line(one, Cancelling, "inventory.released", ""))
	undone := with(released, line(one, Cancelled, "payment.refunded", "payment 1"))
	undone.Status, undone.SettledAt = Cancelled, &one

	for name, c := range map[string]struct {
		from    Progress
		outcome outcome
		want    Progress
		did     effect
	}{
		"paid":                     {pending, paid, confirmed, settled},
		"not paid":                 {pending, failed, cancelled, settled},
		"released before anything": {pending, back, with(pending, line(two, Pending, "inventory.released", "")), noted},
		"released afterwards":      {cancelled, back, with(cancelled, line(two, Cancelled, "inventory.released", "")), noted},
		"paid again":               {confirmed, paid, confirmed, ignored},
		"cancelled by another too": {cancelled, noStock, with(cancelled, line(two, Cancelled, noStock.event, noStock.detail)), noted},
		"paid though cancelled": {cancelled, paid, with(cancelled,
			line(two, Cancelled, paid.event, "too late, the order is CANCELLED: payment 1")), contradicted},
		"refused though confirmed": {confirmed, failed, with(confirmed,
			line(two, Confirmed, failed.event, "too late, the order is CONFIRMED: declined")), contradicted},
		"paid though asked to cancel": {asked, paid, with(asked,
			line(two, Cancelled, paid.event, "too late, the order is CANCELLED: payment 1")), noted},
		"not paid as asked":     {asked, failed, with(asked, line(two, Cancelled, failed.event, "declined")), noted},
		"refused while undoing": {cancelling, failed, with(cancelling, line(two, Cancelling, failed.event, "too late, the order is CANCELLING: declined")), contradicted},
		"not refunded yet":      {cancelling, noMoney, with(cancelling, line(two, Cancelling, noMoney.event, "frozen")), noted},
		"refunded, still held":  {cancelling, moneyBack, with(cancelling, line(two, Cancelling, moneyBack.event, "payment 1")), noted},
		"refunded at last":      {released, moneyBack, undone, settled},
		"refunded again":        {undone, moneyBack, undone, ignored},
		"refunded for no reason": {confirmed, moneyBack, with(confirmed,
			line(two, Confirmed, moneyBack.event, "nobody asked for it: payment 1")), contradicted},
	} {
		now := two
		if c.did == settled {
			now = one
		}
		c.from.History = slices.Grow(c.from.History, 1) // room to write into by mistake
		got, did := c.from.apply(c.outcome, now)
		c.from.apply(outcome{event: "another"}, at(3))
		if diff := cmp.Diff(c.want, got); diff != "" || did != c.did {
			t.Errorf("%s: did %v, want %v, and (-want +got):\n%s", name, did, c.did, diff)
		}
	}
}

// Whatever is told of an order that nobody commands, in whatever order, it settles at most once, on the first news that
// settles, and each event leaves one line.
func TestProgressIsFinal(t *testing.T) {
	t.Parallel()
	all := []outcome{
		{event: "payment.completed", status: Confirmed}, {event: "payment.failed", status: Cancelled, detail: "a"},
		{event: "inventory.reservation.failed", status: Cancelled, detail: "b"}, {event: "inventory.released"},
	}
	rapid.Check(t, func(t *rapid.T) {
		told := rapid.SliceOf(rapid.SampledFrom(all)).Draw(t, "told")
		p := newOrder(uuid.Max, Draft{}, at(0)).Progress
		want, events, settlings := Pending, map[string]bool{}, 0
		for i, n := range told {
			var did effect
			p, did = p.apply(n, at(i))
			if did == settled {
				settlings++
			}
			if want == Pending && n.status != "" {
				want = n.status
			}
			events[n.event] = true
		}
		if p.Status != want || (settlings == 1) != (want != Pending) || settlings > 1 {
			t.Errorf("status %s after %d settlings, want %s", p.Status, settlings, want)
		}
		if (p.SettledAt == nil) != (want == Pending) || (p.Reason != "") != (want == Cancelled) {
			t.Errorf("settled at %v with the reason %q, though %s", p.SettledAt, p.Reason, want)
		}
		if len(p.History) != len(events)+1 {
			t.Errorf("%d lines of history for %d events", len(p.History), len(events))
		}
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	pending := newOrder(uuid.Max, Draft{}, at(0)).Progress
	confirmed, _ := pending.apply(outcome{event: "payment.completed", status: Confirmed}, at(1))
	for name, c := range map[string]struct {
		from Progress
		want Status
	}{
		"PENDING":   {pending, Cancelled},
		"CONFIRMED": {confirmed, Cancelling},
	} {
		got, changed := c.from.cancel("mistake", event.CodeCancelledByUser, at(2))
		last := got.History[len(got.History)-1]
		if !changed || got.Status != c.want || got.Reason != "mistake" || (got.SettledAt == nil) != (c.want == Cancelling) ||
			!reflect.DeepEqual(last, coded(line(at(2), c.want, "order.cancel.requested", "mistake"), event.CodeCancelledByUser, nil)) {
			t.Errorf("%s: %t, %+v", name, changed, got)
		}
		again, changed := got.cancel("another reason", event.CodeExpired, at(3))
		if diff := cmp.Diff(got, again); diff != "" || changed {
			t.Errorf("%s, again: changed %t (-want +got):\n%s", name, changed, diff)
		}
	}
}

func TestCompensations(t *testing.T) {
	t.Parallel()
	const asked, charged, failed, refunded, notRefunded, released, refused = "order.cancel.requested", "payment.completed", "payment.failed",
		"payment.refunded", "payment.refund.failed", "inventory.released", "inventory.reservation.failed"
	for name, c := range map[string]struct {
		status Status
		heard  []string
		want   []Compensation
	}{
		"nothing to undo":                 {Confirmed, []string{charged}, nil},
		"asked, and nothing known":        {Cancelled, []string{asked}, []Compensation{{"refund", "PENDING", ""}, {"release", "PENDING", ""}}},
		"nothing was charged":             {Cancelled, []string{asked, failed}, []Compensation{{"release", "PENDING", ""}}},
		"charged, and to be undone":       {Cancelling, []string{charged, asked, released}, []Compensation{{"refund", "PENDING", ""}, {"release", "DONE", ""}}},
		"cannot pay back":                 {Cancelling, []string{charged, asked, notRefunded}, []Compensation{{"refund", "FAILED", "why"}, {"release", "PENDING", ""}}},
		"paid back in the end":            {Cancelled, []string{charged, asked, refunded, notRefunded, released}, []Compensation{{"refund", "DONE", ""}, {"release", "DONE", ""}}},
		"declined":                        {Cancelled, []string{failed, released}, []Compensation{{"release", "DONE", ""}}},
		"out of stock":                    {Cancelled, []string{refused, released}, nil},
		"asked, but nothing was in stock": {Cancelled, []string{asked, refused, failed}, nil},
	} {
		p := Progress{Status: c.status}
		for _, e := range c.heard {
			p.History = append(p.History, Entry{Event: e, Detail: "why"})
		}
		if diff := cmp.Diff(c.want, p.compensations()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What was undone before an order was asked to be cancelled, and done again since, does not count for its cancellation:
// it is CANCELLED when that is undone, too.
func TestOldNewsDoesNotUnwind(t *testing.T) {
	t.Parallel()
	p := newOrder(uuid.Max, Draft{}, at(0)).Progress
	hear := func(n outcome) (did effect) {
		p, did = p.apply(n, at(2))
		return did
	}
	moneyBack, back := outcome{event: "payment.refunded", undoes: true, detail: "goodwill"}, outcome{event: "inventory.released"}
	hear(outcome{event: "payment.completed", status: Confirmed})
	for _, n := range []outcome{{event: "payment.refund.failed", undoes: true}, moneyBack, back} {
		if did := hear(n); did == ignored || hear(n) != ignored {
			t.Errorf("%s: not heard once", n.event)
		}
	}
	p, _ = p.cancel("mistake", event.CodeCancelledByUser, at(3))
	todo := []Compensation{{What: "refund", State: "PENDING"}, {What: "release", State: "PENDING"}}
	if diff := cmp.Diff(todo, p.compensations()); p.Status != Cancelling || diff != "" {
		t.Errorf("asked to be cancelled, it is %s (-want +got):\n%s", p.Status, diff)
	}
	hear(moneyBack)
	if p.Status != Cancelling {
		t.Errorf("with the money back it is %s", p.Status)
	}
	if did := hear(back); did != settled || p.Status != Cancelled {
		t.Errorf("with the stock back it is %s", p.Status)
	}
	lines := len(p.History)
	if hear(moneyBack) != ignored || hear(back) != ignored || len(p.History) != lines {
		t.Errorf("told once more: %+v", p.History)
	}
	for _, c := range p.compensations() {
		if c.State != "DONE" {
			t.Errorf("%s is %s in the end", c.What, c.State)
		}
	}
}
