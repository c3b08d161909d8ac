package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/converge-dev/converge/testkit/pgtest"
)

// An order is taken by the order service alone; the others learn of it when they can.
func othersAreDown(t *testing.T, s *spine) {
	tea, user := s.product(t, 100), unique("user")
	s.stop(t, "inventory", "payment")
	s.kafka.Stop(t)
	var ids []string
	place := func() {
		t.Helper()
		for range 20 {
			began := time.Now()
			ids = append(ids, s.place(t, cart(user, tea, 1, 2500)).ID)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the order service took %s to take an order on its own", took)
			}
		}
	}
	place()
	s.stop(t, "order")
	s.start(t, "order") // it comes up without Kafka, too
	place()
	for _, id := range ids {
		if o, err := fetch[order](t.Context(), s.url("order")+"/orders/"+id); err != nil || o.Status != pending || len(o.History) != 1 {
			t.Fatalf("order %s is %s after %v, %v; want it PENDING", id, o.Status, o.events(), err)
		}
	}

	s.kafka.Start(t)
	s.start(t, "inventory", "payment")
	if n := s.balance(t, user, ids, map[string]int64{tea: 100}); n != (tally{confirmed: 40}) {
		t.Errorf("orders ended as %+v", n)
	}
}

func servicesRestart(t *testing.T, s *spine) {
	l := s.begin(t)
	for _, name := range everyService() {
		l.more(t, 20)
		s.stop(t, name)
		s.start(t, name)
	}
	l.more(t, 20)
	l.end(t, s)
}

// A stop finishes what is in hand: what was accepted is in Kafka when the order service has ended. A client that has
// connected and says nothing does not hold it up.
func everythingStops(t *testing.T, s *spine) {
	l := s.begin(t)
	l.more(t, 50)
	for _, addr := range s.addrs {
		silent, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	s.stop(t)
	l.stop()
	created := s.records(t, "order.created")
	for _, id := range l.accepted {
		if len(created[id]) == 0 {
			t.Errorf("order %s was accepted, and the service stopped without publishing it", id)
		}
	}
	s.start(t)
	l.end(t, s)
}

// Partitions go to a second instance and come back while orders flow.
func secondInstance(t *testing.T, s *spine) {
	l := s.begin(t)
	var second []*instance
	for _, name := range everyService() {
		second = append(second, s.launch(t, name, pgtest.FreeAddr(t)))
	}
	for _, i := range second {
		i.ready(t)
		if i.name == "profile" || i.name == "search" || i.name == "checker" {
			continue // orders do not come by there
		}
		eventually(t, "the second "+i.name+" takes part", func() error {
			if i.metric(t, "converge_consumer_batch_size_count") == 0 {
				return fmt.Errorf("it has handled nothing")
			}
			return nil
		})
	}
	a, err := request(t.Context(), http.MethodGet, second[0].url()+"/orders?userId="+l.user+"&limit=1", nil)
	if err != nil || a.status != http.StatusOK {
		t.Errorf("the second order service: %d %s %v", a.status, a.body, err)
	}
	for _, i := range second {
		i.stop(t)
		l.more(t, 20)
	}
	l.end(t, s)
}

func kafkaRestarts(t *testing.T, s *spine) {
	l := s.begin(t)
	l.more(t, 20)
	s.kafka.Restart(t)
	l.more(t, 20)
	l.end(t, s)
}

func databasesRestart(t *testing.T, s *spine) {
	l := s.begin(t)
	for _, name := range everyService() {
		l.more(t, 20)
		s.dbs[name].Stop(t)
		eventually(t, name+" says that it is not ready", func() error {
			a, err := request(t.Context(), http.MethodGet, s.url(name)+"/readyz", nil)
			if err == nil && a.status != http.StatusServiceUnavailable {
				err = fmt.Errorf("%d %s", a.status, a.body)
			}
			return err
		})
		s.dbs[name].Start(t)
		s.services[name].ready(t)
	}
	l.more(t, 20)
	l.end(t, s)
}
