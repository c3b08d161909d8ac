package saga

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHealth()
		check := func(want ...string) {
			t.Helper()
			err := h.Check(t.Context())
			if (err == nil) != (len(want) == 0) {
				t.Fatalf("got %v, want %q", err, want)
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("got %v, want %q in it", err, w)
				}
			}
		}
		check()
		h.observe(broker.GroupState{Group: "order"})
		h.observe(broker.GroupState{Group: "payment", Member: true})
		<-time.After(unwell)
		check()
		<-time.After(time.Second)
		check("order", "no membership")

		h.observe(broker.GroupState{Group: "order", Member: true, Missing: []string{"a"}})
		<-time.After(unwell / 2)
		h.observe(broker.GroupState{Group: "order", Member: true, Missing: []string{"a", "b"}})
		check()
		<-time.After(unwell/2 + time.Second)
		check("order", "misses topics: a")
		if err := h.Check(t.Context()); strings.Contains(err.Error(), "b") && strings.Contains(err.Error(), "a, b") {
			t.Errorf("b has not been missing that long: %v", err)
		}
		h.observe(broker.GroupState{Group: "order", Member: false})
		check()
		h.observe(broker.GroupState{Group: "order", Member: true})
		<-time.After(time.Minute)
		check()
	})
}
