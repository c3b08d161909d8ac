package order

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/event"
)

// model is one order with an inventory and a payment that keep their contracts, without tables. All that was ever told
// is in messages; each is delivered at least once, to each that listens, in whatever order.
type model struct {
	order    Progress
	stock    string // RESERVED, REFUSED or RELEASED; empty: the order is not known there
	money    string // COMPLETED, FAILED or REFUNDED; empty: the order is not known there
	frozen   bool   // payment cannot pay back
	owed     bool   // it has said so
	messages []message
	undue    []string // what must not happen and did
	again    int      // cancellations that were told once more
	ticks    int
}

type message struct {
	event, to string
}

// tell sends an event to each that listens to it.
func (m *model) tell(events ...string) {
	listeners := map[string][]string{
		"order.created": {"inventory"}, "inventory.reserved": {"payment"}, "order.cancel.requested": {"payment"},
		"inventory.reservation.failed": {"order"}, "inventory.released": {"order"}, "payment.completed": {"order"},
		"payment.failed": {"order", "inventory"}, "payment.refunded": {"order", "inventory"},
		"payment.refund.failed": {"order", "inventory"}, "order.cancelled": {"inventory"},
		"order.confirmed": {"nobody"},
	}
	for _, e := range events {
		for _, to := range listeners[e] {
			m.messages = append(m.messages, message{e, to})
		}
	}
}

func (m *model) told(event string) (n int) {
	for _, msg := range m.messages {
		if msg.event == event {
			n++
		}
	}
	return n
}

// deliver is what each service does with a message. The outcomes that are a matter of chance are drawn.
func (m *model) deliver(t *rapid.T, msg message) {
	switch msg.to {
	case "order":
		m.hear(msg.event)
	case "inventory":
		switch {
		case msg.event != "order.created":
			if m.stock != "REFUSED" {
				m.stock = "RELEASED" // with a mark, if it comes first
			}
			m.tell("inventory.released")
		case m.stock != "":
			m.repeatReserve()
		case rapid.IntRange(0, 3).Draw(t, "stock") == 0:
			m.stock = "REFUSED"
			m.tell("inventory.reservation.failed")
		default:
			m.stock = "RESERVED"
			m.tell("inventory.reserved")
		}
	case "payment":
		m.pay(t, msg.event)
	}
}

// repeatReserve is the stored outcome, or the refusal of what was released first.
func (m *model) repeatReserve() {
	if m.told("inventory.reserved") > 0 {
		m.tell("inventory.reserved")
	} else {
		m.tell("inventory.reservation.failed")
	}
}

func (m *model) pay(t *rapid.T, event string) {
	switch {
	case m.money == "" && event == "inventory.reserved":
		m.money = rapid.SampledFrom([]string{"COMPLETED", "COMPLETED", "FAILED"}).Draw(t, "payment")
	case m.money == "":
		m.money = "FAILED" // a mark: what comes late is not charged
	case m.money == "COMPLETED" && event == "order.cancel.requested":
		if m.frozen {
			if !m.owed {
				m.tell("payment.refund.failed")
			}
			m.owed = true
			return
		}
		m.money = "REFUNDED"
	}
	switch {
	case m.money == "FAILED":
		m.tell("payment.failed")
	case event == "inventory.reserved": // a fact, though it was paid back since
		m.tell("payment.completed")
	default:
		m.tell("payment.refunded")
	}
}

// thaw lets payment pay back what it owes.
func (m *model) thaw() {
	m.frozen = false
	if m.owed && m.money == "COMPLETED" {
		m.money = "REFUNDED"
		m.tell("payment.refunded")
	}
}

func (m *model) hear(topic string) {
	n := map[string]outcome{
		"payment.completed": paid(event.PaymentCompletedV1{}), "payment.failed": notPaid(event.PaymentFailedV1{Error: "declined"}),
		"payment.refunded": refunded(event.PaymentRefundedV1{}), "payment.refund.failed": notRefunded(event.PaymentRefundFailedV1{Error: "frozen"}),
		"inventory.reservation.failed": notReserved(event.InventoryReservationFailedV1{Error: "out of stock"}),
		"inventory.released":           released(event.InventoryReleasedV1{}),
	}[topic]
	n.event = topic
	m.ticks++
	var did effect
	m.order, did = m.order.apply(n, at(m.ticks))
	switch did {
	case settled:
		m.tell(map[Status]string{Confirmed: "order.confirmed", Cancelled: "order.cancelled"}[m.order.Status])
	case contradicted:
		m.undue = append(m.undue, topic+" contradicts "+string(m.order.Status))
	}
}

// ask commands: a user, or the deadline, which leaves alone what is not PENDING.
func (m *model) ask(reason string) {
	if reason == expired && m.order.Status != Pending {
		return
	}
	m.ticks++
	var changed bool
	if m.order, changed = m.order.cancel(reason, event.CodeCancelledByUser, at(m.ticks)); changed {
		m.tell("order.cancel.requested")
		if m.order.Status == Cancelled {
			m.tell("order.cancelled")
		}
	}
}

// compare tells the order what the others hold, as somebody may who looks before all is heard.
func (m *model) compare() {
	was := m.order.Status
	h := held{reserved: m.stock == "RESERVED", paid: m.money == "COMPLETED"}
	m.ticks++
	var changed bool
	m.order, changed = m.order.reconcile(comparison{held: h, reason: "looked at", by: "the test"}, at(m.ticks))
	switch is := m.order.Status; {
	case is == Confirmed && changed:
		m.tell("order.confirmed")
	case was == Cancelling && changed:
		m.tell("order.cancelled")
	case changed, was == Cancelling, was == Cancelled && (h.reserved || h.paid):
		m.tell("order.cancel.requested")
		if is == Cancelled {
			m.tell("order.cancelled")
		}
		if was == Cancelled {
			m.again++
		}
	}
}

// Whenever an order is cancelled, by its user, its deadline, who compares what is held, or not at all, and however
// messages overtake each other and come again: it ends CONFIRMED, reserved and paid, or CANCELLED, with neither stock
// nor money held; it says so once, and once more only where it was found that something was held still; and it never
// leaves CANCELLED.
func TestCancelledAtAnyMoment(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &model{order: newOrder(uuid.Max, Draft{}, at(0)).Progress, frozen: rapid.Bool().Draw(t, "frozen")}
		m.tell("order.created")
		var delivered []message // of messages, in that order: the first of them
		left := func() int { return len(m.messages) - len(delivered) }
		confirmed := func() bool {
			return slices.ContainsFunc(m.order.History, func(e Entry) bool { return e.Status == Confirmed })
		}
		step := func(was Progress) {
			if m.order.Status == Cancelled && confirmed() && (m.money != "REFUNDED" || m.stock != "RELEASED") {
				t.Fatalf("a confirmed order is cancelled, its payment %s and its stock %s", m.money, m.stock)
			}
			if was.Status == Cancelled && m.order.Status != Cancelled || was.Status == Cancelling && m.order.Status == Confirmed || m.order.Status == Pending && was.Status != Pending {
				t.Fatalf("went from %s to %s", was.Status, m.order.Status)
			}
			if len(m.order.History) > 10 {
				t.Fatalf("the history grows: %+v", m.order.History)
			}
		}
		next := func() { // one that was not delivered yet, from anywhere among them
			i := len(delivered) + rapid.IntRange(0, left()-1).Draw(t, "next")
			m.messages[len(delivered)], m.messages[i] = m.messages[i], m.messages[len(delivered)]
			delivered = m.messages[:len(delivered)+1]
			m.deliver(t, delivered[len(delivered)-1])
		}
		for range rapid.IntRange(0, 25).Draw(t, "steps") {
			was := m.order
			switch rapid.IntRange(0, 10).Draw(t, "step") {
			case 10:
				m.compare()
			case 0:
				m.ask("mistake")
			case 1:
				m.ask(expired)
			case 2:
				m.thaw()
			case 3, 4:
				if len(delivered) > 0 {
					m.deliver(t, rapid.SampledFrom(delivered).Draw(t, "again"))
				}
			default:
				if left() > 0 {
					next()
				}
			}
			step(was)
		}
		m.thaw()
		for left() > 0 {
			was := m.order
			next()
			step(was)
		}

		is := m.order
		switch {
		case is.Status == Confirmed && m.money == "COMPLETED" && m.stock == "RESERVED" && !is.asked():
		case is.Status == Cancelled && m.money != "COMPLETED" && m.stock != "RESERVED":
		default:
			t.Errorf("the order is %s, its payment %s, its stock %s", is.Status, m.money, m.stock)
		}
		if m.told("order.confirmed") == 1 != confirmed() || m.told("order.cancelled")-m.again == 1 != (is.Status == Cancelled) {
			t.Errorf("told of %d confirmations and %d cancellations of an order after %+v", m.told("order.confirmed"), m.told("order.cancelled"), is.History)
		}
		for _, c := range is.compensations() {
			if c.State != "DONE" {
				t.Errorf("%s is %s in the end, after %+v", c.What, c.State, is.History)
			}
		}
		if len(m.undue) > 0 {
			t.Errorf("contradictions among services that keep their contracts: %v", m.undue)
		}
	})
}
