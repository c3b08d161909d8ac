package e2e_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
)

// What any consumer, in any language, finds in the topics: CloudEvents in the Kafka binding's binary mode, and the
// trace of the request that began it all.
func eventsFollowTheContract(t *testing.T, s *spine) {
	tea := s.product(t, 10)
	for _, saga := range []struct {
		amount  int64
		status  string
		history []string
		events  map[string]string // topic: the event that caused it
	}{
		{2500, confirmed, []string{"order.created", "payment.completed"}, map[string]string{
			"order.created": "", "inventory.reserved": "order.created", "payment.completed": "inventory.reserved",
			"order.confirmed": "payment.completed",
		}},
		{tooMuch, cancelled, []string{"order.created", "inventory.released", "payment.failed"}, map[string]string{
			"order.created": "", "inventory.reserved": "order.created", "payment.failed": "inventory.reserved",
			"inventory.released": "payment.failed", "order.cancelled": "payment.failed",
		}},
	} {
		traceID := strings.ReplaceAll(uuid.NewString(), "-", "")
		o := s.place(t, cart(unique("user"), tea, 1, saga.amount), "traceparent", "00-"+traceID+"-00f067aa0ba902b7-01")
		s.settled(t, o.ID, saga.status, saga.history...)

		found := map[string]broker.Record{}
		for topic := range saga.events {
			var records []broker.Record
			eventually(t, topic+" holds the event", func() error {
				if records = s.records(t, topic)[o.ID]; len(records) == 0 {
					return fmt.Errorf("it holds none of order %s", o.ID)
				}
				return nil
			})
			if len(records) != 1 && topic != "inventory.released" { // which is told for each of its causes
				t.Errorf("%s holds %d records of order %s", topic, len(records), o.ID)
			}
			found[topic] = records[0]
		}
		for _, r := range s.records(t, "inventory.released")[o.ID] {
			if because := found[saga.events["inventory.released"]]; r.Header("ce_causationid") == because.Header("ce_id") {
				found["inventory.released"] = r
			}
		}
		first := found["order.created"]
		for topic, cause := range saga.events {
			r := found[topic]
			service, _, _ := strings.Cut(topic, ".")
			for header, want := range map[string]string{
				"ce_specversion": "1.0", "ce_type": topic, "ce_source": "/" + service, "ce_subject": o.ID,
				"content-type": "application/json", "ce_correlationid": first.Header("ce_id"),
			} {
				if got := r.Header(header); got != want {
					t.Errorf("%s: %s is %q, want %q", topic, header, got, want)
				}
			}
			because := found[cause] // none for the first
			if got := r.Header("ce_causationid"); got != because.Header("ce_id") {
				t.Errorf("%s: ce_causationid is %q, want %q, the ce_id of %s", topic, got, because.Header("ce_id"), cause)
			}
			if id, err := uuid.Parse(r.Header("ce_id")); err != nil || id.Version() != 7 {
				t.Errorf("%s: ce_id is %q, want a UUID of version 7", topic, r.Header("ce_id"))
			}
			if at, err := time.Parse(time.RFC3339Nano, r.Header("ce_time")); err != nil || time.Since(at).Abs() > time.Minute || at.Location() != time.UTC {
				t.Errorf("%s: ce_time is %q, want the moment, in UTC", topic, r.Header("ce_time"))
			}
			if got := r.Header("traceparent"); !regexp.MustCompile(`^00-` + traceID + `-[0-9a-f]{16}-0[01]$`).MatchString(got) {
				t.Errorf("%s: traceparent is %q, want the request's trace %s", topic, got, traceID)
			}
			var value struct {
				OrderID string `json:"orderId"`
			}
			if err := json.Unmarshal(r.Value, &value); err != nil || value.OrderID != o.ID {
				t.Errorf("%s: the value is %s, want JSON about order %s", topic, r.Value, o.ID)
			}
		}
	}
}

// deadLetters lists all there are.
func (s *spine) deadLetters(t testing.TB) (list string) {
	t.Helper()
	eventually(t, "dead letters are listed", func() (err error) { // not while their topics are being made
		list, err = s.command(t, "dlq", "list", "-all")
		return err
	})
	return list
}

// deadLetter waits for a dead letter of the group under a key, beyond those that are known, and returns its place.
func (s *spine) deadLetter(t testing.TB, group, key string, known ...string) (place, line string) {
	t.Helper()
	eventually(t, "a dead letter of "+key, func() error {
		list, err := s.command(t, "dlq", "list", "-all", "-group", group)
		if err != nil {
			return err
		}
		for l := range strings.Lines(list) {
			if f := strings.Fields(l); len(f) > 1 && f[1] == key && !slices.Contains(known, f[0]) {
				place, line = f[0], l
				return nil
			}
		}
		return fmt.Errorf("it is not among\n%s", list)
	})
	return place, line
}

// A fault of the code (here: of the schema, as after a migration gone wrong) ends in the dead letter topic, and once it
// is mended the dead letter takes its course.
func deadLetterIsRedriven(t *testing.T, s *spine) {
	tea, user := s.product(t, 10), unique("user")
	db, err := pgx.Connect(t.Context(), s.dbs["inventory"].URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	if _, err := db.Exec(t.Context(), `ALTER TABLE reservations RENAME TO misplaced`); err != nil {
		t.Fatal(err)
	}
	o := s.place(t, cart(user, tea, 4, 2500))
	place, line := s.deadLetter(t, "inventory", o.ID)
	if !strings.HasPrefix(place, "inventory.dlq/") || !strings.Contains(line, "order.created/") || !strings.Contains(line, "reservations") {
		t.Errorf("dlq list says %q; want where it lies, that it came from order.created, and that reservations are missing", line)
	}
	if _, err := db.Exec(t.Context(), `ALTER TABLE misplaced RENAME TO reservations`); err != nil {
		t.Fatal(err)
	}
	if now, err := fetch[order](t.Context(), s.url("order")+"/orders/"+o.ID); err != nil || now.Status != pending {
		t.Fatalf("the order is %s, %v; want it PENDING until the dead letter is handled", now.Status, err)
	}

	for range 2 { // twice is as good as once
		if out := s.converge(t, "dlq", "redrive", place); out != place+" -> order.created\n" {
			t.Errorf("dlq redrive says %q", out)
		}
	}
	s.settled(t, o.ID, confirmed, "order.created", "payment.completed")
	if n := s.balance(t, user, []string{o.ID}, map[string]int64{tea: 10}); n != (tally{confirmed: 1}) {
		t.Errorf("orders ended as %+v", n)
	}
}

// Somebody else's program writes to a topic of ours.
func poison(t *testing.T, s *spine) {
	tea, user, key := s.product(t, 100), unique("user"), unique("poison")
	partner := uuid.NewString()
	s.strangers = append(s.strangers, partner)
	records := []broker.Record{
		{Topic: "order.created", Key: []byte(key), Value: []byte(`{"orderId":`), Headers: []broker.Header{{Key: "from", Value: []byte("a stranger")}}},
		// As somebody types it into the console producer: no headers, a field that we do not know.
		{Topic: "order.created", Key: []byte(partner), Value: fmt.Appendf(nil,
			`{"orderId":%q,"userId":%q,"items":[{"productId":%q,"quantity":2}],"amount":700,"currency":"EUR","gift":true}`, partner, user, tea)},
	}
	for _, err := range s.client(t).Produce(t.Context(), records) {
		if err != nil {
			t.Fatal(err)
		}
	}
	place, line := s.deadLetter(t, "inventory", key)
	if !strings.Contains(line, "order.created/") || !strings.Contains(line, "decode") {
		t.Errorf("dlq list says %q; want that it came from order.created and cannot be decoded", line)
	}
	shown := s.converge(t, "dlq", "show", place)
	for _, want := range []string{"key: " + key, "from: a stranger", "dlq-reason: ", "dlq-handler: inventory\n", "dlq-topic: order.created\n", "\n\n{\"orderId\":\n"} {
		if !strings.Contains(shown, want) {
			t.Errorf("dlq show says\n%s\nwithout %q", shown, want)
		}
	}

	o := s.place(t, cart(user, tea, 1, 2500))
	s.settled(t, o.ID, confirmed, "order.created", "payment.completed")
	eventually(t, "the stranger's order is reserved and paid", func() error {
		r, err := fetch[reservation](t.Context(), s.url("inventory")+"/reservations/"+partner)
		if err != nil {
			return err
		}
		p, err := fetch[payment](t.Context(), s.url("payment")+"/payments/"+partner)
		if err == nil && (r.Status != "RESERVED" || p.Status != "COMPLETED" || p.Amount != 700) {
			err = fmt.Errorf("reservation %+v, payment %+v", r, p)
		}
		return err
	})
	if _, line := s.deadLetter(t, "order", partner); !strings.Contains(line, "not known") {
		t.Errorf("of the order that it never took, the order service says %q", line)
	}

	s.converge(t, "dlq", "redrive", place) // nothing has changed, so it comes back
	s.deadLetter(t, "inventory", key, place)
}
