package checker

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

var sortKinds = cmpopts.SortSlices(func(a, b checker.Kind) bool { return a < b })

// What has changed since the watermark is on its way: counted, and left for the next check. So is what changes in a
// future that only another service's clock knows. What is younger than grace is not even looked at, nor what a clock
// that is ahead has placed.
func TestWhatIsYoungIsNotJudged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(hourAgo(1), "CONFIRMED", "RESERVED", "")
	b.put(hourAgo(2), "CONFIRMED", "RELEASED", "COMPLETED")
	b.exec(`UPDATE reservations SET changed_at = $2 WHERE order_id = $1`, hourAgo(2), noon.Add(-29*time.Second))
	b.put(hourAgo(3), "PENDING", "RESERVED", "COMPLETED")
	b.exec(`UPDATE payments SET changed_at = $2 WHERE order_id = $1`, hourAgo(3), noon.Add(time.Hour))
	b.put(idAt(noon.Add(-29*time.Second), 4), "CONFIRMED", "", "")
	b.put(idAt(noon.Add(time.Hour), 5), "CONFIRMED", "", "")
	r := b.check(checker.Request{})
	if diff := cmp.Diff(map[uuid.UUID][]checker.Kind{hourAgo(1): {ConfirmedNotPaid}}, kindsOf(r)); diff != "" || r.InFlight != 2 || r.Checked != 3 {
		t.Errorf("%d in flight of %d; (-want +got):\n%s", r.InFlight, r.Checked, diff)
	}
	if want := noon.Add(-30 * time.Second); !r.Watermark.Equal(want) || r.Watermark.Location() != time.UTC {
		t.Errorf("watermark %s, want %s", r.Watermark, want)
	}
}

// Ids that no order service makes are not forgotten: of days to come, of no time at all, and of long ago.
func TestIDsOutsideOfTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := map[uuid.UUID][]checker.Kind{}
	for _, id := range []uuid.UUID{
		idAt(noon.Add(25*time.Hour), 1), uuid.MustParse("fe2e4ca8-1f58-4d53-b3a7-14b3b0e24c8d"), uuid.MustParse("80000000-0000-4000-8000-000000000000"),
		uuid.MustParse("00000000-0000-4000-8000-000000000001"), {}, // the nil UUID can be asked for as a span, though not as one order
	} {
		b.put(id, "", "", "COMPLETED")
		want[id] = []checker.Kind{PaidWithoutOrder}
	}
	if diff := cmp.Diff(want, kindsOf(b.check(checker.Request{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The longer events wait somewhere, the older must be what is judged. What waited in an outbox when it was asked for
// may be in Kafka a moment later, so both times count.
func TestWatermarkIsBeforeWhatWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(hourAgo(1), "CONFIRMED", "RESERVED", "")
	b.put(hourAgo(2), "CONFIRMED", "RESERVED", "")
	b.exec(`UPDATE orders SET changed_at = $2 WHERE id = $1`, hourAgo(2), noon.Add(-16*time.Minute))
	b.flows = []func(int) (facts.Flow, error){
		func(service int) (facts.Flow, error) {
			return facts.Flow{Unpublished: 1, UnpublishedMs: int64(5-service) * 60_000}, nil
		},
		func(service int) (facts.Flow, error) {
			return facts.Flow{UnhandledMs: int64(service) * 6 * 60_000}, nil
		},
	}
	r := b.check(checker.Request{})
	if want := noon.Add(-(5 + 12) * time.Minute).Add(-30 * time.Second); !r.Watermark.Equal(want) {
		t.Errorf("watermark %s, want %s", r.Watermark, want)
	}
	if diff := cmp.Diff(map[uuid.UUID][]checker.Kind{hourAgo(1): {ConfirmedNotPaid}}, kindsOf(r)); diff != "" || r.InFlight != 1 {
		t.Errorf("%d in flight; (-want +got):\n%s", r.InFlight, diff)
	}
}

// What is another in the second look is not judged, however old the service says it is: what it was by the first look
// is over, and what caused the change may not have been in any flow.
func TestWhatChangesBetweenTheLooksIsNotJudged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for n := range 4 {
		b.put(hourAgo(n), "CONFIRMED", "RESERVED", "")
	}
	b.flows = []func(int) (facts.Flow, error){
		func(service int) (facts.Flow, error) {
			if service == orders {
				b.put(hourAgo(1), "CONFIRMED", "RESERVED", "FAILED")    // differs still
				b.put(hourAgo(2), "CONFIRMED", "RESERVED", "COMPLETED") // agrees
				b.put(hourAgo(3), "CANCELLED", "RESERVED", "")          // differs otherwise
			}
			return facts.Flow{}, nil
		},
	}
	r := b.check(checker.Request{})
	if diff := cmp.Diff(map[uuid.UUID][]checker.Kind{hourAgo(0): {ConfirmedNotPaid}}, kindsOf(r)); diff != "" || r.InFlight != 2 {
		t.Errorf("%d in flight; (-want +got):\n%s", r.InFlight, diff)
	}
	// The next check, with nothing in between, judges them.
	want := map[uuid.UUID][]checker.Kind{hourAgo(0): {ConfirmedNotPaid}, hourAgo(1): {ConfirmedNotPaid}, hourAgo(3): {ReservedForCancelled}}
	if diff := cmp.Diff(want, kindsOf(b.check(checker.Request{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOneOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(hourAgo(1), "CONFIRMED", "RELEASED", "FAILED")
	b.put(hourAgo(2), "CONFIRMED", "RESERVED", "")
	b.put(hourAgo(3), "CONFIRMED", "RESERVED", "COMPLETED")
	young := idAt(noon.Add(-time.Second), 4)
	b.put(young, "PENDING", "RESERVED", "")
	b.exec(`UPDATE orders SET changed_at = $2 WHERE id = $1`, young, noon.Add(-time.Second))
	for id, want := range map[uuid.UUID][]checker.Kind{hourAgo(1): {ConfirmedNotPaid, ConfirmedNotReserved}, hourAgo(2): {ConfirmedNotPaid}, hourAgo(3): nil, young: nil} {
		r := b.check(checker.Request{Order: id})
		if diff := cmp.Diff(want, kindsOf(r)[id]); diff != "" || r.Checked != 1 || r.Order != id || (r.InFlight == 1) != (id == young) {
			t.Errorf("%+v; (-want +got):\n%s", r, diff)
		}
		if asked := r.Cost.Requests; asked != 12 {
			t.Errorf("%d requests for one order, want two looks at it and two at flow, of three services each", asked)
		}
	}
	if _, err := newChecker(b.cfg).Check(t.Context(), checker.Request{Order: hourAgo(9)}); !errors.Is(err, checker.ErrUnknownOrder) || !strings.Contains(err.Error(), hourAgo(9).String()) {
		t.Errorf("an order that nobody knows: %v", err)
	}
}

// Of a check since a moment, what is older is no matter, nor are the services' own rules and dead letters.
func TestSince(t *testing.T) {
	t.Parallel()
	b := setup(t)
	since := noon.Add(-90 * time.Minute)
	for _, id := range []uuid.UUID{idAt(since, 1), hourAgo(2), idAt(since.Add(-time.Millisecond), 3)} {
		b.put(id, "CONFIRMED", "RESERVED", "")
	}
	b.rules[reservations] = []facts.Breach{{Kind: "stock-mismatch", Subject: "p-1"}}
	b.cfg.Letters = func(context.Context) ([]checker.Letter, error) { return nil, errors.New("looked for dead letters") }
	r := b.check(checker.Request{Since: since})
	want := map[uuid.UUID][]checker.Kind{idAt(since, 1): {ConfirmedNotPaid}, hourAgo(2): {ConfirmedNotPaid}}
	if diff := cmp.Diff(want, kindsOf(r)); diff != "" || r.Checked != 2 {
		t.Errorf("%d checked; (-want +got):\n%s", r.Checked, diff)
	}
}

// A check that could not look is not a clean one, and it says who was not there.
func TestWhoCannotBeAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(hourAgo(1), "CONFIRMED", "RESERVED", "")
	away := httptest.NewServer(nil)
	away.Close()
	for name, tt := range map[string]struct {
		change  func(*Config)
		flow    func(int) (facts.Flow, error)
		service string
		says    string
	}{
		"a service is away":     {change: func(c *Config) { c.InventoryURL = away.URL }, service: "inventory", says: "connection refused"},
		"no address":            {change: func(c *Config) { c.PaymentURL = "" }, service: "payment", says: "unsupported protocol scheme"},
		"another one's address": {change: func(c *Config) { c.OrderURL = c.PaymentURL }, service: "order", says: `tells what is "paid"`},
		"flow is not known":     {flow: func(int) (facts.Flow, error) { return facts.Flow{}, errors.New("no Kafka") }, says: "503"},
		"flow is not known of one": {flow: func(service int) (f facts.Flow, err error) {
			if service == payments {
				err = errors.New("no Kafka")
			}
			return f, err
		}, service: "payment", says: "/facts/flow: 503"},
	} {
		b.mu.Lock()
		b.flows, b.round = slices.Repeat([]func(int) (facts.Flow, error){tt.flow}, 20), three[int]{}
		b.mu.Unlock()
		cfg := b.cfg
		if tt.change != nil {
			tt.change(&cfg)
		}
		for _, r := range []checker.Request{{Since: noon.Add(-2 * time.Hour)}, {}} {
			_, err := newChecker(cfg).Check(t.Context(), r)
			var lost *checker.ServiceError
			if !errors.As(err, &lost) || !strings.Contains(lost.Service, tt.service) || !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), lost.Service) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestOutboxStuck(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stuck := func(service int) (facts.Flow, error) {
		return facts.Flow{Unpublished: 7, UnpublishedMs: int64(30+service*20) * 1000}, nil
	}
	b.flows = []func(int) (facts.Flow, error){stuck, stuck}
	want := []checker.Finding{{Subject: "payment", Kind: checker.OutboxStuck, Detail: "7 events wait to be published, the oldest for 1m10s", Repair: checker.Repair{Action: "operator", State: checker.None}}}
	if diff := cmp.Diff(want, b.check(checker.Request{Repair: true}).Findings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if found := b.check(checker.Request{}).Findings; len(found) > 0 {
		t.Errorf("with nothing in the outboxes: %+v", found)
	}
}

func TestChecksAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(idsOf(500, time.Minute)...)
	b.put(hourAgo(1), "CONFIRMED", "RESERVED", "")
	c := newChecker(b.cfg)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			r, err := c.Check(t.Context(), checker.Request{})
			if err == nil && len(r.Findings) != 1 {
				t.Errorf("found %+v", r.Findings)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
