package checker

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

// What is equal costs the same few requests, and no more than some kilobytes, however much it is: also where one
// service holds nothing at all of what another has refused.
func TestEqualSetsMoveFewBytes(t *testing.T) {
	t.Parallel()
	var costs []checker.Cost
	for _, n := range []int{100, 30_000} {
		b := setup(t)
		b.fill(idsOf(n, time.Second)...)
		for i := range 3 {
			b.put(idAt(noon.AddDate(0, 0, -7), i), "CANCELLED", "REFUSED", "")
		}
		r := b.check(checker.Request{})
		if len(r.Findings) > 0 || r.InFlight > 0 || r.Checked != int64(n+3) || r.Cost.Rows != int64(3*n+6) {
			t.Fatalf("%d orders: %+v", n, r)
		}
		if asked := b.asked.Load(); asked != r.Cost.Requests {
			t.Errorf("%d orders: %d requests, and the report says %d", n, asked, r.Cost.Requests)
		}
		costs = append(costs, r.Cost)
	}
	if costs[0].Requests != costs[1].Requests || costs[1].Requests > 22 || costs[1].Bytes > 60_000 {
		t.Errorf("100 orders cost %+v, 30,000 cost %+v", costs[0], costs[1])
	}
}

// Each difference is found, wherever it lies and whichever service it is at, and nothing else is.
func TestPlantedDifferencesAreFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := idsOf(20_000, 20*time.Second) // of nearly five days
	b.fill(ids...)
	before := b.check(checker.Request{}).Cost
	want := map[uuid.UUID][]checker.Kind{}
	for i, one := range []struct {
		order, reservation, payment string
		kinds                       []checker.Kind
	}{
		{"CONFIRMED", "RELEASED", "COMPLETED", []checker.Kind{ConfirmedNotReserved}},
		{"CONFIRMED", "RESERVED", "", []checker.Kind{ConfirmedNotPaid}},
		{"CONFIRMED", "REFUSED", "REFUNDED", []checker.Kind{ConfirmedNotPaid, ConfirmedNotReserved}},
		{"PENDING", "RESERVED", "COMPLETED", []checker.Kind{PaidNotConfirmed}},
		{"CANCELLED", "RESERVED", "FAILED", []checker.Kind{ReservedForCancelled}},
		{"CANCELLED", "RELEASED", "COMPLETED", []checker.Kind{PaidForCancelled}},
		{"PENDING", "RESERVED", "", []checker.Kind{StuckPending}},
		{"CANCELLING", "RESERVED", "COMPLETED", []checker.Kind{StuckCancelling}},
		{"", "RESERVED", "FAILED", []checker.Kind{ReservedWithoutOrder}},
		{"", "RELEASED", "COMPLETED", []checker.Kind{PaidWithoutOrder}},
	} {
		id := ids[i*1_999]
		b.put(id, one.order, one.reservation, one.payment)
		want[id] = one.kinds
	}
	b.exec(`UPDATE payments SET amount = 99 WHERE order_id = $1`, ids[19_999])
	want[ids[19_999]] = []checker.Kind{PaidWrongAmount}
	b.put(ids[777], "CANCELLED", "RELEASED", "REFUNDED") // which is as it should be
	b.put(ids[778], "CANCELLED", "REFUSED", "")
	b.put(ids[779], "", "RELEASED", "FAILED")

	r := b.check(checker.Request{})
	if diff := cmp.Diff(want, kindsOf(r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r.Cost.Requests > before.Requests+11*15 || r.Cost.Bytes > 2_000_000 {
		t.Errorf("eleven differences cost %+v; without them it was %+v", r.Cost, before)
	}
}

// Ids on either side of where days and the parts of a day begin, the first and the last that a millisecond can have.
func TestDifferencesAtTheBordersOfBuckets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	day := noon.Truncate(24*time.Hour).AddDate(0, 0, -1)
	last := func(at time.Time) uuid.UUID { // before the next millisecond
		id := facts.FirstOf(at)
		for i := 6; i < len(id); i++ {
			id[i] = 0xff
		}
		return id
	}
	b.fill(idsOf(5000, 20*time.Second)...) // so that days are split
	want := map[uuid.UUID][]checker.Kind{}
	width := 24 * time.Hour
	for _, border := range []time.Time{day, day.Add(width / 64), day.Add(width / 64 * 17), day.Add((width / 64).Truncate(time.Millisecond) / 64), day.Add(width)} {
		for _, id := range []uuid.UUID{facts.FirstOf(border), last(border.Add(-time.Millisecond)), last(border)} {
			b.put(id, "CONFIRMED", "RESERVED", "")
			want[id] = []checker.Kind{ConfirmedNotPaid}
		}
	}
	if diff := cmp.Diff(want, kindsOf(b.check(checker.Request{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A millisecond in which more orders were placed than one answer lists is read page by page.
func TestOneMillisecondOfManyPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var ids []uuid.UUID
	for n := range 2_500 {
		ids = append(ids, hourAgo(n))
	}
	b.fill(ids...)
	want := map[uuid.UUID][]checker.Kind{}
	for _, n := range []int{0, 999, 1000, 1001, 2000, 2499} { // the last of a page, and the first of the next
		b.put(ids[n], "CONFIRMED", "", "COMPLETED")
		want[ids[n]] = []checker.Kind{ConfirmedNotReserved}
	}
	if diff := cmp.Diff(want, kindsOf(b.check(checker.Request{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// More orders are wrong than are looked at again at once, or listed in a report.
func TestMoreThanAReportLists(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(idsOf(2_300, time.Second)...)
	b.exec(`UPDATE orders SET status = 'CANCELLED'`)
	r := b.check(checker.Request{})
	want := map[checker.Kind]int{PaidForCancelled: 2300, ReservedForCancelled: 2300}
	if diff := cmp.Diff(want, r.Kinds); diff != "" || len(r.Findings) != 1000 || r.More != 3600 {
		t.Errorf("%d findings and %d more; kinds (-want +got):\n%s", len(r.Findings), r.More, diff)
	}
}

// Whatever a thousand orders have become, near each other and far apart: what is found is what a comparison of all with
// all finds.
func TestRandomDifferences(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		b := setup(t)
		random := rand.New(rand.NewPCG(seed, 0))
		pick := func(states []string) string { return states[random.IntN(len(states))] }
		ids := make([]uuid.UUID, 3000)
		for i := range ids {
			ids[i] = idAt(noon.Add(-time.Hour-time.Duration(random.ExpFloat64()*float64(8*time.Hour))), i)
		}
		b.fill(ids...)
		want := map[uuid.UUID][]checker.Kind{}
		for range 60 {
			id, order, reservation, payment := ids[random.IntN(len(ids))], pick(orderStates), pick(reservationStates), pick(paymentStates)
			b.put(id, order, reservation, payment)
			delete(want, id)
			if flaws, _ := judge(holding(order, reservation, payment, time.Hour, time.Hour, time.Hour), term); len(flaws) > 0 {
				for _, f := range flaws {
					want[id] = append(want[id], f.Kind)
				}
			}
		}
		got := kindsOf(b.check(checker.Request{}))
		if diff := cmp.Diff(want, got, sortKinds); diff != "" {
			t.Errorf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
}
