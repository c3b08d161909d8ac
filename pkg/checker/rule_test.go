package checker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// Each rule finds what breaks it, in a span of its own and in one in which the sets differ as they may, and nothing
// else.
func TestRules(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]time.Duration{"apart": 20 * time.Minute, "together": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ids := make([]uuid.UUID, 12)
			for i := range ids {
				ids[i] = idAt(noon.Add(-6*time.Hour+time.Duration(i)*between), i)
			}
			b.fill(ids...)
			b.exec(`DELETE FROM shipments WHERE id = $1`, ids[0]) // not shipped yet, as it may be
			if r := b.check(Request{}); len(r.Findings) > 0 || r.InFlight > 0 || r.Checked < 12 {
				t.Errorf("at first: %+v", r)
			}
			want := map[uuid.UUID][]Kind{}
			for i, one := range []struct {
				sql   string
				kinds []Kind
			}{
				{`UPDATE orders SET status = 'CANCELLED' WHERE id = $1`, []Kind{shippedNotConfirmed}},
				{`DELETE FROM orders WHERE id = $1`, []Kind{shippedNotConfirmed}},
				{`UPDATE shipments SET amount = 99 WHERE id = $1`, []Kind{shippedWrongAmount}},
				{`UPDATE shipments SET amount = 101 WHERE id = $1`, []Kind{shippedWrongAmount}},
				{`UPDATE orders SET currency = 'USD' WHERE id = $1`, []Kind{shippedWrongAmount}},
				{`UPDATE orders SET user_id = 'u-2' WHERE id = $1`, []Kind{shippedWrongUser}},
				{`UPDATE shipments SET items = '[{"productId":"p-1","quantity":4}]' WHERE id = $1`, []Kind{shippedWrongItems}},
				{`UPDATE shipments SET items = '[]', user_id = '' WHERE id = $1`, []Kind{shippedWrongItems, shippedWrongUser}},
				{`UPDATE orders SET status = 'PENDING' WHERE id = $1`, []Kind{orderStuck, shippedNotConfirmed}},
				{`UPDATE shipments SET status = 'PACKED' WHERE id = $1`, nil},
			} {
				b.exec(one.sql, ids[i+1])
				if one.kinds != nil {
					want[ids[i+1]] = one.kinds
				}
			}
			if diff := cmp.Diff(want, kindsOf(b.check(Request{}))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			b.exec(`UPDATE shipments SET changed_at = $1`, noon)
			if r := b.check(Request{}); len(r.Findings) > 2 || r.InFlight != 9 {
				t.Errorf("%d in flight of what has just changed; found %v", r.InFlight, r.Findings)
			}
		})
	}
}

// Two amounts that are wrong by the same to either side are found by the digest of what each member holds.
func TestAmountsThatCancelOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cfg.Rules = []Rule{SameAmount(shippedWrongAmount, "shipping", "order")}
	b.fill(hoursAgo(4)...)
	b.exec(`UPDATE shipments SET amount = amount + CASE id WHEN $1 THEN 1 ELSE -1 END WHERE id IN ($1, $2)`, hourAgo(1), hourAgo(2))
	want := map[uuid.UUID][]Kind{hourAgo(1): {shippedWrongAmount}, hourAgo(2): {shippedWrongAmount}}
	if diff := cmp.Diff(want, kindsOf(b.check(Request{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Of two sets that must be equal, what is missing on either side is found, and what is there says where.
func TestEqual(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.cfg.Rules = []Rule{Equal("not-both", "order", "shipping")}
	b.fill(hoursAgo(5)...)
	b.exec(`DELETE FROM shipments WHERE id = $1`, hourAgo(1))
	b.exec(`UPDATE orders SET status = 'CANCELLED' WHERE id = $1`, hourAgo(2))
	want := []Finding{
		{OrderID: hourAgo(1), Kind: "not-both", Detail: "it is in the set of order, and not in that of shipping: order CONFIRMED (100 EUR), no shipment"},
		{OrderID: hourAgo(2), Kind: "not-both", Detail: "it is in the set of shipping, and not in that of order: order CANCELLED (100 EUR), shipment SHIPPED (100 EUR)"},
	}
	got := b.check(Request{}).Findings
	for i := range got {
		got[i].Repair = Repair{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What rules name a command for is put right by it, once, and is no longer found; a thing of which something else is
// wrong too is left to a person. What a service refuses is reported with its words.
func TestCommandsRepair(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(hoursAgo(4)...)
	b.exec(`UPDATE orders SET status = 'CANCELLED' WHERE id = ANY($1)`, hoursAgo(2))
	b.exec(`UPDATE shipments SET amount = 1 WHERE id = $1`, hourAgo(3))
	states := func(r Report) (all []string) {
		for _, f := range r.Findings {
			text := string(f.Kind) + ": " + f.Repair.Action + " " + string(f.Repair.State)
			if f.Repair.After != nil {
				text += ", then " + f.Repair.After.String()
			}
			all = append(all, strings.TrimSpace(text+" "+f.Repair.Detail))
		}
		return all
	}
	left := "shipped-wrong-amount: operator NONE"
	if diff := cmp.Diff([]string{"shipped-not-confirmed: stop PLANNED", "shipped-not-confirmed: stop PLANNED", left}, states(b.check(Request{}))); diff != "" || b.commands.Load() != 0 {
		t.Errorf("%d commands without a repair (-want +got):\n%s", b.commands.Load(), diff)
	}
	for refuse, text := range map[*Refusal]string{
		{Status: 409, Type: "urn:problem-type:on-its-way", Detail: "the truck has left"}:             "REFUSED, then order CANCELLED (100 EUR), shipment SHIPPED (100 EUR) the truck has left",
		{Status: 409, Type: "urn:problem-type:" + facts.TypeChanged, Detail: "it is STOPPED by now"}: "FAILED, then order CANCELLED (100 EUR), shipment SHIPPED (100 EUR) changed meanwhile, the next check looks again: it is STOPPED by now",
	} {
		b.refuse = refuse
		if diff := cmp.Diff([]string{"shipped-not-confirmed: stop " + text, "shipped-not-confirmed: stop " + text, left}, states(b.check(Request{Repair: true}))); diff != "" {
			t.Errorf("refused (-want +got):\n%s", diff)
		}
	}
	b.refuse = nil
	done := "shipped-not-confirmed: stop DONE, then order CANCELLED (100 EUR), shipment STOPPED"
	if diff := cmp.Diff([]string{done, done, left}, states(b.check(Request{Repair: true}))); diff != "" || b.commands.Load() != 2 {
		t.Errorf("%d commands (-want +got):\n%s", b.commands.Load(), diff)
	}
	if diff := cmp.Diff([]string{left}, states(b.check(Request{Repair: true}))); diff != "" || b.commands.Load() != 2 {
		t.Errorf("%d commands after it (-want +got):\n%s", b.commands.Load(), diff)
	}
	// Something is wrong that no command puts right: to stop it may be the wrong answer.
	b.fill(hourAgo(9))
	b.exec(`UPDATE orders SET status = 'PENDING' WHERE id = $1`, hourAgo(9))
	if diff := cmp.Diff([]string{"order-stuck: operator NONE", "shipped-not-confirmed: operator NONE", left}, states(b.check(Request{Repair: true}))); diff != "" || b.commands.Load() != 2 {
		t.Errorf("%d commands (-want +got):\n%s", b.commands.Load(), diff)
	}
}

// What a service finds with itself is recounted by the command that is declared of it, before orders are repaired or
// after, and what is not declared is left to a person.
func TestRecounts(t *testing.T) {
	t.Parallel()
	for _, last := range []bool{false, true} {
		b := setup(t)
		b.cfg.Services[shipping].RecountLast = last
		b.fill(hourAgo(1))
		b.exec(`UPDATE orders SET status = 'CANCELLED'`)
		b.rules[shipping] = []facts.Breach{{Kind: string(parcelMismatch), Subject: "p/1", Detail: "7 and 8"}, {Kind: "mood-swing", Subject: "x"}}
		var journal []string
		b.cfg.Journal = func(_ context.Context, f Finding) (func(Finding, any), error) {
			return func(f Finding, after any) {
				if text, ok := after.(json.RawMessage); ok {
					f.Detail += " " + string(text)
				}
				journal = append(journal, string(f.Kind)+" "+string(f.Repair.State)+": "+f.Detail)
			}, nil
		}
		r := b.check(Request{Repair: true})
		var states []string
		for _, f := range r.Findings {
			states = append(states, string(f.Kind)+": "+f.Repair.Action+" "+string(f.Repair.State))
		}
		if diff := cmp.Diff([]string{"mood-swing: operator NONE", "parcel-mismatch: recount DONE", "shipped-not-confirmed: stop DONE"}, states); diff != "" {
			t.Errorf("last %t (-want +got):\n%s", last, diff)
		}
		want := []string{
			`parcel-mismatch DONE: 7 and 8 {"counted":"/parcels/p%2F1/recount"}`,
			"shipped-not-confirmed DONE: it is in the set of shipping, and not in that of order: order CANCELLED (100 EUR), shipment SHIPPED (100 EUR)",
		}
		if last {
			slices.Reverse(want)
		}
		if diff := cmp.Diff(want, journal); diff != "" {
			t.Errorf("last %t: in turn (-want +got):\n%s", last, diff)
		}
	}
}

// What is declared wrongly is an error that names it, not a check that finds nothing.
func TestDeclarations(t *testing.T) {
	t.Parallel()
	order, shipping := Service{Name: "order", Set: "confirmed"}, Service{Name: "shipping", Set: "shipped"}
	for says, cfg := range map[string]Config{
		"expected services and rules":                                        {},
		"expected a name and a set":                                          {Services: []Service{order, {Name: "shipping"}}, Rules: []Rule{Equal("x", "order", "shipping")}},
		`no service "delivery": the services are order, shipping (rule [x])`: {Services: []Service{order, shipping}, Rules: []Rule{Equal("x", "order", "delivery")}},
		`no service "ship"`:                                                  {Services: []Service{order, shipping}, Rules: []Rule{Equal("x", "order", "shipping").RepairedBy(Command{Service: "ship", Path: "/x"})}},
		"all functions of the rule [x]":                                      {Services: []Service{order, shipping}, Rules: []Rule{{Kinds: []Kind{"x"}}}},
		`two services "order"`:                                               {Services: []Service{order, shipping, order}, Rules: []Rule{Equal("x", "order", "shipping")}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %s", err, says)
		}
	}
}

// What is held is an object by what it is called, in the services' order, and comes back as it was but for what nobody
// held.
func TestHeldAsJSON(t *testing.T) {
	t.Parallel()
	user := "<u>"
	at := noon
	h := Held{
		{Service: "order", Name: "order", Fact: &facts.Fact{ID: hourAgo(1), Status: "CONFIRMED", ChangedAt: at, UserID: &user}},
		{Service: "inventory", Name: "reservation"},
		{Service: "billing", Name: "bill", Fact: &facts.Fact{ID: hourAgo(1), Status: "OPEN", ChangedAt: at}},
	}
	for _, tt := range []struct {
		h    Held
		want string
	}{{h, `{"order":{"id":"` + hourAgo(1).String() + `","member":false,"status":"CONFIRMED","changedAt":"2026-01-31T12:00:00Z","userId":"\u003cu\u003e"},"bill":{"id":"` +
		hourAgo(1).String() + `","member":false,"status":"OPEN","changedAt":"2026-01-31T12:00:00Z"}}`}, {Held{}, `{}`}, {h[1:2], `{}`}} {
		got, err := json.Marshal(Repair{After: &tt.h, State: Done})
		if want := `{"action":"","state":"DONE","after":` + tt.want + `}`; err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
		var back Repair
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(back)
		if err != nil || string(again) != string(got) || len(tt.h) > 1 && back.After.String() != "order CONFIRMED, bill OPEN" {
			t.Errorf("back as %s (%v), %v", again, back.After, err)
		}
	}
}
