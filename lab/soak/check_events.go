package soak

import (
	"fmt"

	"github.com/google/uuid"
)

// told is which events the state of an order has to have, and no others.
func (f *facts) told(id uuid.UUID) map[string]bool {
	due := map[string]bool{}
	o := f.orders[id]
	if o != nil {
		due["order.created"] = true
		due["order.confirmed"] = o.confirmed()
		due["order.cancel.requested"] = o.heard("order.cancel.requested")
		due["order.cancelled"] = o.Status == "CANCELLED"
		due["inventory.released"] = o.Status == "CANCELLED" // also of one that held nothing
	}
	if r := f.reservations[id]; r != nil {
		due["inventory.reserved"] = len(r.Items) > 0 // also of what was given back since
		due["inventory.reservation.failed"] = len(r.Items) == 0
	}
	if p := f.payments[id]; p != nil {
		due["payment.completed"] = p.Status == "COMPLETED" || p.Status == "REFUNDED"
		due["payment.failed"] = p.Status == "FAILED"
		due["payment.refunded"] = p.Status == "REFUNDED"
		due["payment.refund.failed"] = p.Status == "REFUNDED" && len(f.topics["payment.refund.failed"][id]) > 0 // if it took long
	}
	return due
}

// causes says which event leads to which. What else there is begins with a request, or with a try of payment's own.
func causes() map[string][]string {
	return map[string][]string{
		"inventory.reserved": {"order.created"}, "inventory.reservation.failed": {"order.created"},
		"payment.completed": {"inventory.reserved"}, "payment.failed": {"inventory.reserved", "order.cancel.requested"},
		"inventory.released": {"payment.failed", "payment.refunded", "payment.refund.failed", "order.cancelled"},
		"order.confirmed":    {"payment.completed"},
		"order.cancelled":    {"payment.failed", "inventory.reservation.failed", "payment.refunded", "inventory.released"},
	}
}

// repeats tells whether a topic may tell the same of an order for each of several causes.
func repeats(topic string) bool { return topic == "inventory.released" || topic == "payment.failed" }

// checkEvents holds the topics against the states: an event is there if and only if what it tells was committed.
func (f *facts) checkEvents(v *verdict) {
	ids := map[uuid.UUID]bool{}
	for id := range f.orders {
		ids[id] = true
	}
	for id := range f.reservations {
		ids[id] = true
	}
	for id := range f.payments {
		ids[id] = true
	}
	for _, byOrder := range f.topics {
		for id := range byOrder {
			ids[id] = true
		}
	}
	for id := range ids {
		f.checkEventsOf(v, id)
	}
}

func (f *facts) checkEventsOf(v *verdict, id uuid.UUID) {
	due := f.told(id)
	partition := -1
	for _, topic := range eventTopics() {
		records := f.topics[topic][id]
		switch {
		case due[topic] && len(records) == 0:
			v.order(id, fmt.Sprintf("a state has no %s in its topic", topic))
			continue
		case !due[topic] && len(records) > 0:
			v.order(id, fmt.Sprintf("%s is in its topic without its state", topic))
		case len(records) == 0:
			continue
		}
		of := map[uuid.UUID]uuid.UUID{} // event by cause
		for _, r := range records {
			cause := r.cause
			if !repeats(topic) {
				cause = uuid.Nil
			}
			if first, ok := of[cause]; ok && r.id != first {
				v.order(id, fmt.Sprintf("two different %s are in the topic", topic))
			} else if !ok {
				of[cause] = r.id
				f.checkContent(v, id, topic, r)
			}
			if partition >= 0 && r.partition != partition {
				v.order(id, "one order's events are in more than one partition")
			}
			partition = r.partition
		}
	}
}

// checkContent holds one event against the row it tells of, and against the event that caused it.
func (f *facts) checkContent(v *verdict, id uuid.UUID, topic string, r record) {
	o, p := f.orders[id], f.payments[id]
	switch topic {
	case "order.created", "inventory.reserved":
		if o != nil && r.amount != o.Amount {
			v.order(id, fmt.Sprintf("%s tells another amount than the order's", topic))
		}
	case "payment.completed":
		if p != nil && (r.amount != p.Amount || r.payment != p.ID) {
			v.order(id, "payment.completed tells of another payment than is stored")
		}
	}
	if topic == "order.cancelled" && r.cause == uuid.Nil && o != nil && o.heard("order.cancel.requested") {
		return // of an order that was PENDING: both at once
	}
	if caused := causes()[topic]; caused != nil {
		for _, by := range caused {
			for _, c := range f.topics[by][id] {
				if c.id == r.cause {
					return
				}
			}
		}
		v.order(id, fmt.Sprintf("%s has no cause in the topics", topic))
	}
}
