package order

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func TestProgress(t *testing.T) {
	t.Parallel()
	pending := place(uuid.Max, Draft{}, at(0)).Progress
	one, two := at(1), at(2)
	paid := news{event: "payment.completed", status: Confirmed, detail: "payment 1"}
	failed := news{event: "payment.failed", status: Cancelled, detail: "declined"}
	noStock := news{event: "inventory.reservation.failed", status: Cancelled, detail: "out of stock: p-1"}
	back := news{event: "inventory.released"}

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
	for name, c := range map[string]struct {
		from Progress
		news news
		want Progress
		did  effect
	}{
		"paid":                     {pending, paid, confirmed, settled},
		"not paid":                 {pending, failed, cancelled, settled},
		"released before anything": {pending, back, with(pending, Entry{two, Pending, "inventory.released", ""}), noted},
		"released afterwards":      {cancelled, back, with(cancelled, Entry{two, Cancelled, "inventory.released", ""}), noted},
		"paid again":               {confirmed, paid, confirmed, ignored},
		"cancelled by another too": {cancelled, noStock, with(cancelled, Entry{two, Cancelled, noStock.event, noStock.detail}), noted},
		"paid though cancelled": {cancelled, paid, with(cancelled,
			Entry{two, Cancelled, paid.event, "too late, the order is CANCELLED: payment 1"}), contradicted},
		"refused though confirmed": {confirmed, failed, with(confirmed,
			Entry{two, Confirmed, failed.event, "too late, the order is CONFIRMED: declined"}), contradicted},
	} {
		now := two
		if c.did == settled {
			now = one
		}
		c.from.History = slices.Grow(c.from.History, 1) // room to write into by mistake
		got, did := c.from.after(c.news, now)
		c.from.after(news{event: "another"}, at(3))
		if diff := cmp.Diff(c.want, got); diff != "" || did != c.did {
			t.Errorf("%s: did %v, want %v, and (-want +got):\n%s", name, did, c.did, diff)
		}
	}
}

// Whatever is told in whatever order, an order settles at most once, on the first news that settles, and each event
// leaves one line.
func TestProgressIsFinal(t *testing.T) {
	t.Parallel()
	all := []news{
		{event: "payment.completed", status: Confirmed}, {event: "payment.failed", status: Cancelled, detail: "a"},
		{event: "inventory.reservation.failed", status: Cancelled, detail: "b"}, {event: "inventory.released"},
	}
	rapid.Check(t, func(t *rapid.T) {
		told := rapid.SliceOf(rapid.SampledFrom(all)).Draw(t, "told")
		p := place(uuid.Max, Draft{}, at(0)).Progress
		want, events, settlings := Pending, map[string]bool{}, 0
		for i, n := range told {
			var did effect
			p, did = p.after(n, at(i))
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

func TestDuplicates(t *testing.T) {
	t.Parallel()
	got := Draft{Items: []Item{{"a", 1}, {"b", 1}, {"a", 2}, {"c", 1}, {"a", 3}, {"b", 1}}}.duplicates()
	want := []duplicate{{2, 0}, {4, 0}, {5, 1}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(duplicate{})); diff != "" {
		t.Errorf("duplicates (-want +got):\n%s", diff)
	}
}
