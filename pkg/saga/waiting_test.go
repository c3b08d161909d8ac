package saga_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// Dead letters wait until the operator has dealt with them and with all before them.
func TestWaitingLetters(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		from := c.Topic(t, 1)
		dlq := c.Topic(t, 1)
		bury := func(n int, headers ...broker.Header) {
			t.Helper()
			headers = append(headers, broker.Header{Key: "dlq-handler", Value: []byte("g")}, broker.Header{Key: "dlq-topic", Value: []byte(from)},
				broker.Header{Key: "ce_id", Value: []byte(strconv.Itoa(n))})
			if err := client.Produce(t.Context(), []broker.Record{{Topic: dlq, Key: []byte(strconv.Itoa(n)), Value: []byte("{}"), Headers: headers}})[0]; err != nil {
				t.Fatal(err)
			}
		}
		waiting := func() []saga.DeadLetter {
			t.Helper()
			letters, err := saga.WaitingLetters(t.Context(), client, dlq, "no-such.dlq")
			if err != nil {
				t.Fatal(err)
			}
			return letters
		}
		wait := func(want ...string) []saga.DeadLetter {
			t.Helper()
			letters := waiting()
			var got []string
			for _, d := range letters {
				got = append(got, fmt.Sprintf("%s %t", d.Record.Key, d.Redriven()))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("waiting (-want +got):\n%s", diff)
			}
			return letters
		}
		wait()
		bury(0)
		bury(1)
		bury(2, broker.Header{Key: "converge-redrive", Value: []byte("g@elsewhere")})
		letters := wait("0 false", "1 false", "2 true")
		if err := saga.PassLetters(t.Context(), client, letters[1:2]); err != nil {
			t.Fatal(err)
		}
		wait("0 false", "1 false", "2 true") // the first still waits
		for range 2 {
			errs, err := saga.RedriveLetters(t.Context(), client, letters[:2])
			if err != nil || errs[0] != nil || errs[1] != nil {
				t.Fatal(errs, err)
			}
			wait("2 true")
		}
		if err := saga.PassLetters(t.Context(), client, waiting()); err != nil {
			t.Fatal(err)
		}
		wait()
		if err := saga.KeepLetters(t.Context(), client, dlq, "no-such.dlq"); err != nil {
			t.Fatal(err)
		}
		wait()
		bury(3)
		wait("3 false")
		back := 0
		if err := client.Scan(t.Context(), from, func(r broker.Record) error { back++; return nil }); err != nil || back != 4 {
			t.Errorf("%d records are back, %v, want two, twice", back, err)
		}
		topics, err := client.Topics(t.Context())
		found := 0
		for _, name := range topics {
			if name == from || name == dlq {
				found++
			}
		}
		if err != nil || found != 2 {
			t.Errorf("topics %v, %v", topics, err)
		}
	})
}
