package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/cli"
	"github.com/converge-dev/converge/services/system"
	"github.com/converge-dev/converge/testkit/brokertest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

// terminal is where the command is run.
type terminal struct {
	*testing.T
	env    map[string]string
	client *broker.Client
}

// setup gives a test a broker with every topic.
func setup(t *testing.T) terminal {
	t.Helper()
	c := brokertest.Fake(t)
	client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	term := terminal{t, map[string]string{"KAFKA_BROKERS": strings.Join(c.Brokers(), ",")}, client}
	term.run("topics", "-partitions", "2")
	return term
}

// try runs the command and returns what it prints and what it complains of.
func (t terminal) try(args ...string) (out, errOut string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var o, e strings.Builder
	err = cli.Run(ctx, args, func(name string) string { return t.env[name] }, &o, &e)
	return o.String(), e.String(), err
}

// run runs the command, which must succeed.
func (t terminal) run(args ...string) string {
	t.Helper()
	out, errOut, err := t.try(args...)
	if err != nil || errOut != "" {
		t.Fatalf("converge %s: %v\n%s", strings.Join(args, " "), err, errOut)
	}
	return out
}

// bury puts a dead letter of a message of the topic where the group's lie, as its consumer does.
func (t terminal) bury(group, topic, key, reason string) {
	t.Helper()
	var headers []broker.Header
	for _, h := range [][2]string{
		{"dlq-id", uuid.NewSHA1(uuid.Nil, []byte(key)).String()},
		{"dlq-reason", reason}, {"dlq-handler", group}, {"dlq-topic", topic}, {"dlq-partition", "1"}, {"dlq-offset", "42"},
		{"dlq-attempts", "6"}, {"dlq-time", "2026-11-23T10:11:12.13Z"}, {"ce_id", "id of " + key},
	} {
		headers = append(headers, broker.Header{Key: h[0], Value: []byte(h[1])})
	}
	record := broker.Record{Topic: group + ".dlq", Key: []byte(key), Value: []byte("what " + key + " said"), Headers: headers}
	if errs := t.client.Produce(t.Context(), []broker.Record{record}); errs[0] != nil {
		t.Fatal(errs[0])
	}
}

// records shows what lies in a topic, a line for each record, by key.
func (t terminal) records(topic string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := t.client.Scan(t.Context(), topic, func(r broker.Record) error {
		line := string(r.Value)
		for _, h := range r.Headers {
			line += fmt.Sprintf("; %s=%s", h.Key, h.Value)
		}
		found[string(r.Key)] = append(found[string(r.Key)], line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTopics(t *testing.T) {
	term := setup(t)
	want := `analytics.dlq (1)
inventory.dlq (1)
inventory.release.dlq (1)
inventory.released (2)
inventory.reservation.failed (2)
inventory.reserved (2)
order.cancel.requested (2)
order.cancelled (2)
order.confirmed (2)
order.created (2)
order.dlq (1)
payment.completed (2)
payment.dlq (1)
payment.failed (2)
payment.refund.dlq (1)
payment.refund.failed (2)
payment.refunded (2)
product.updated (2)
search.dlq (1)
user.profile.updated (2)
`
	if diff := cmp.Diff(want, term.run("topics", "-partitions", "2")); diff != "" { // once more than setup: they are there
		t.Errorf("topics (-want +got):\n%s", diff)
	}
	if _, _, err := term.try("topics", "-partitions", "3"); err == nil || !strings.Contains(err.Error(), "has 2 partitions, want at least 3") {
		t.Errorf("more partitions than there are: %v; want the operator told, for keys would move", err)
	}
}

func TestDeadLetters(t *testing.T) {
	term := setup(t)
	if out := term.run("dlq", "list"); out != "No dead letters wait.\n" {
		t.Errorf("an empty list says %q", out)
	}
	term.bury("inventory", "order.created", "order-1", "two\nlines")
	term.bury("inventory", "order.created", "order-2", "no such table")
	term.bury("order", "payment.failed", "order-3", "order is not known")

	header := "DEAD LETTER        KEY      FROM                 ATTEMPTS  WHEN                  REASON\n"
	inventory := `inventory.dlq/0/0  order-1  order.created/1/42   6         2026-11-23T10:11:12Z  two; lines
inventory.dlq/0/1  order-2  order.created/1/42   6         2026-11-23T10:11:12Z  no such table
`
	order := "order.dlq/0/0      order-3  payment.failed/1/42  6         2026-11-23T10:11:12Z  order is not known\n"
	if diff := cmp.Diff(header+inventory+order, term.run("dlq", "list")); diff != "" {
		t.Errorf("dlq list (-want +got):\n%s", diff)
	}
	if got := term.run("dlq", "list", "-group", "order"); strings.Contains(got, "order-1") || !strings.Contains(got, "order.dlq/0/0") {
		t.Errorf("dlq list of one group says\n%s", got)
	}

	want := `key: order-2
dlq-id: 5dc0ab98-5b06-5c97-8d61-b9e77d93ead8
dlq-reason: no such table
dlq-handler: inventory
dlq-topic: order.created
dlq-partition: 1
dlq-offset: 42
dlq-attempts: 6
dlq-time: 2026-11-23T10:11:12.13Z
ce_id: id of order-2

what order-2 said
`
	if diff := cmp.Diff(want, term.run("dlq", "show", "inventory.dlq/0/1")); diff != "" {
		t.Errorf("dlq show (-want +got):\n%s", diff)
	}
}

// A redriven message is the original with the mark of its redrive, and stays among the dead letters.
func TestRedrive(t *testing.T) {
	term := setup(t)
	for _, key := range []string{"order-1", "order-2", "order-3"} {
		term.bury("inventory", "order.created", key, "no such table")
	}
	term.bury("order", "payment.failed", "order-4", "order is not known")

	out := term.run("dlq", "redrive", "inventory.dlq/0/1", "order.dlq/0/0")
	if want := "inventory.dlq/0/1 -> order.created\norder.dlq/0/0 -> payment.failed\n"; out != want {
		t.Errorf("dlq redrive says %q, want %q", out, want)
	}
	original := func(key, group, place string) string {
		return fmt.Sprintf("what %s said; converge-redrive=%s@%s; converge-id=%s; ce_id=id of %s", key, group, place, uuid.NewSHA1(uuid.Nil, []byte(key)), key)
	}
	second := original("order-2", "inventory", "order.created/1/42")
	if diff := cmp.Diff(map[string][]string{"order-2": {second}}, term.records("order.created")); diff != "" {
		t.Errorf("order.created (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]string{"order-4": {original("order-4", "order", "payment.failed/1/42")}}, term.records("payment.failed")); diff != "" {
		t.Errorf("payment.failed (-want +got):\n%s", diff)
	}

	term.run("dlq", "redrive", "-group", "inventory")
	want := map[string][]string{
		"order-1": {original("order-1", "inventory", "order.created/1/42")},
		"order-2": {second, second}, // it waited for the one before it
		"order-3": {original("order-3", "inventory", "order.created/1/42")},
	}
	if diff := cmp.Diff(want, term.records("order.created")); diff != "" {
		t.Errorf("order.created after all were redriven (-want +got):\n%s", diff)
	}
	if out := term.run("dlq", "list"); out != "No dead letters wait.\n" {
		t.Errorf("after all were redriven, there wait\n%s", out)
	}
	if out := term.run("dlq", "list", "-all"); strings.Count(out, "\n") != 5 {
		t.Errorf("after all were redriven, there are\n%s", out)
	}
	term.bury("inventory", "order.created", "order-5", "no such table")
	if out := term.run("dlq", "pass", "-group", "inventory"); out != "inventory.dlq/0/3 passed\n" || term.run("dlq", "list") != "No dead letters wait.\n" {
		t.Errorf("dlq pass says %q", out)
	}
	if n := len(term.records("inventory.dlq")); n != 4 {
		t.Errorf("%d dead letters of inventory are left, want all 4", n)
	}
	if _, _, err := term.try("dlq", "redrive", "inventory.dlq/0/0", "inventory.dlq/0/9"); err == nil || !strings.Contains(err.Error(), "no dead letter inventory.dlq/0/9") {
		t.Errorf("one that is not there: %v", err)
	}
	if diff := cmp.Diff(want, term.records("order.created")); diff != "" {
		t.Errorf("order.created after a command that failed (-want +got):\n%s", diff)
	}
}

func TestGraph(t *testing.T) {
	term := terminal{T: t}
	drawn := term.run("graph")
	if drawn != saga.Mermaid(system.Choreography()...) || !strings.HasPrefix(drawn, "flowchart") {
		t.Errorf("graph prints\n%s", drawn)
	}
	doc := filepath.Join(t.TempDir(), "README.md")
	for text, good := range map[string]bool{
		"# A\n\n```mermaid\n" + drawn + "```\n":        true,
		"# A\n\n```mermaid\n" + drawn + "    x\n```\n": false,
		"# A\n": false,
	} {
		if err := os.WriteFile(doc, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := term.try("graph", "--check", doc)
		if good != (err == nil) || (err != nil && !strings.Contains(err.Error(), doc)) {
			t.Errorf("a document that shows the graph: %t; checking it: %v", good, err)
		}
	}
	if _, _, err := term.try("graph", "--check", doc+".nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a document that is not there: %v", err)
	}
}

func TestWrongUsage(t *testing.T) {
	term := terminal{T: t}
	for args, want := range map[string]string{
		"": "usage: converge COMMAND", "nonsense": "usage: converge COMMAND", "dlq": "usage: converge COMMAND",
		"dlq list extra": "usage: converge dlq list", "dlq list -nonsense": "usage: converge dlq list",
		"dlq show": "usage: converge dlq show", "dlq show a b": "usage: converge dlq show",
		"dlq pass": "usage: converge dlq pass", "check extra": "usage: converge check", "check ack": "usage: converge check ack", "check acks extra": "usage: converge check acks",
		"check unack paid-wrong-amount": "usage: converge check unack", "restored": "usage: converge restored", "restored a b": "usage: converge restored", "dlq redrive": "usage: converge dlq redrive", "dlq redrive -group g a/0/0": "usage: converge dlq redrive",
		"topics extra": "usage: converge topics", "topics -partitions many": "usage: converge topics",
		"graph extra": "usage: converge graph", "seed extra": "usage: converge seed",
		"order": "usage: converge COMMAND", "order watch": "usage: converge order watch", "order watch a b": "usage: converge order watch",
	} {
		out, errOut, err := term.try(strings.Fields(args)...)
		if !errors.Is(err, cli.ErrUsage) || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("converge %s: %v, prints %q and complains\n%s\nwant %q", args, err, out, errOut, want)
		}
	}
	if _, errOut, _ := term.try(); !strings.Contains(errOut, "dlq redrive") || !strings.Contains(errOut, "KAFKA_BROKERS") {
		t.Errorf("the usage names not every command, or not how Kafka is found:\n%s", errOut)
	}
}

func TestErrors(t *testing.T) {
	term := setup(t)
	brokers := term.env["KAFKA_BROKERS"]
	for _, tt := range []struct {
		brokers string
		args    string
		want    []string
	}{
		{brokers, "dlq list -group orders", []string{`no consumer group "orders"`, "order.dlq", "inventory.release.dlq"}},
		{brokers, "dlq redrive -group orders", []string{`no consumer group "orders"`}},
		{brokers, "dlq show inventory.dlq", []string{`"inventory.dlq" names no dead letter`, "TOPIC/PARTITION/OFFSET"}},
		{brokers, "dlq show inventory.dlq/0/last", []string{`"last" is not a number`}},
		{brokers, "dlq show inventory.dlq/0/0", []string{"no dead letter inventory.dlq/0/0"}},
		{brokers, "dlq show nowhere.dlq/0/0", []string{"no dead letter nowhere.dlq/0/0"}},
		{"nowhere", "dlq list", []string{"KAFKA_BROKERS", "nowhere", "host:port"}},
		{"127.0.0.1:1", "dlq list", []string{"KAFKA_BROKERS", "127.0.0.1:1"}},
		{brokers, "seed -inventory http://127.0.0.1:1", []string{"http://127.0.0.1:1/products/", "connection refused"}},
		{"127.0.0.1:1", "topics", []string{"KAFKA_BROKERS", "127.0.0.1:1"}},
	} {
		term.env["KAFKA_BROKERS"] = tt.brokers
		out, _, err := term.try(strings.Fields(tt.args)...)
		if err == nil || errors.Is(err, cli.ErrUsage) || out != "" {
			t.Errorf("converge %s: %v, prints %q; want an error alone", tt.args, err, out)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("converge %s: %v; want an error with %q", tt.args, err, want)
			}
		}
	}
}
