package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/cli"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

type value struct{}

var (
	placed  = saga.NewTopic[value]("order.placed")
	granted = saga.NewTopic[value]("points.granted")
	mailed  = saga.NewTopic[value]("mail.sent")
)

func handle(context.Context, pgx.Tx, saga.Msg[value]) ([]saga.Out, error) { return nil, nil }

// loyalty is compiled into the tests' tool, and mailer is not.
func loyalty() saga.Service {
	return saga.Service{Name: "loyalty", Routes: []saga.Route{saga.On(placed, handle, granted)}}
}

func mailer() saga.Service {
	return saga.Service{
		Name: "mailer", Publishes: []saga.AnyTopic{mailed},
		Routes: []saga.Route{saga.On(granted, handle, mailed), saga.On(placed, handle).Named("thanks")},
	}
}

// running answers as a running service does that declares itself, and returns its URL.
func running(t *testing.T, svc saga.Service) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/choreography.json" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(svc.Declaration())
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func try(t *testing.T, tool cli.Tool, env map[string]string, args string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	err := tool.Run(ctx, strings.Fields(args), func(name string) string { return env[name] }, &out, io.Discard)
	return out.String(), err
}

func run(t *testing.T, tool cli.Tool, env map[string]string, args string) string {
	t.Helper()
	out, err := try(t, tool, env, args)
	if err != nil {
		t.Fatalf("converge %s: %v", args, err)
	}
	return out
}

// What is compiled in is drawn together with the services that CONVERGE_SERVICES names, and without what does not run
// when only running services are asked for. Topics from nowhere and to nowhere show.
func TestGraphOfWhatRuns(t *testing.T) {
	t.Parallel()
	tool := cli.Tool{Services: []saga.Service{loyalty()}}
	if diff := cmp.Diff(`flowchart LR
    loyalty[loyalty]
    loyalty -- points.granted --> points_granted_sink(( ))
    order_placed_source(( )) -- order.placed --> loyalty
`, run(t, tool, nil, "graph")); diff != "" {
		t.Errorf("compiled in (-want +got):\n%s", diff)
	}
	env := map[string]string{"CONVERGE_SERVICES": "mailer=" + running(t, mailer()) + "/, idle=" + running(t, saga.Service{Name: "idle"})}
	if diff := cmp.Diff(`flowchart LR
    loyalty[loyalty]
    mailer[mailer]
    loyalty -- points.granted --> mailer
    mailer -- mail.sent --> mail_sent_sink(( ))
    order_placed_source(( )) -- order.placed --> loyalty
    order_placed_source(( )) -- order.placed --> mailer
`, run(t, tool, env, "graph")); diff != "" {
		t.Errorf("with one that is asked (-want +got):\n%s", diff)
	}
	if got := run(t, tool, env, "graph -from-services"); strings.Contains(got, "loyalty") || !strings.Contains(got, "points_granted_source(( )) -- points.granted --> mailer") {
		t.Errorf("from the running services:\n%s", got)
	}
	other := running(t, saga.Service{Name: "loyalty", Publishes: []saga.AnyTopic{mailed}}) // another version than is compiled in
	tool.Places = []cli.Address{{Service: "loyalty", URL: other}}
	for args, services := range map[string]string{"graph -from-services": "", "graph": "loyalty=" + other} {
		if diff := cmp.Diff(`flowchart LR
    loyalty[loyalty]
    loyalty -- mail.sent --> mail_sent_sink(( ))
`, run(t, tool, map[string]string{"CONVERGE_SERVICES": services}, args)); diff != "" {
			t.Errorf("%s with CONVERGE_SERVICES=%s, where another version runs (-want +got):\n%s", args, services, diff)
		}
	}
	if diff := cmp.Diff(`# loyalty
kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:loyalty --operation Read --operation DescribeConfigs --topic order.placed
kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:loyalty --operation Write --operation DescribeConfigs --topic points.granted --topic loyalty.dlq
kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:loyalty --operation Read --group loyalty
# mailer
kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:mailer --operation Read --operation DescribeConfigs --topic points.granted --topic order.placed
kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:mailer --operation Write --operation DescribeConfigs --topic mail.sent --topic mailer.dlq --topic mailer.thanks.dlq
kafka-acls.sh --bootstrap-server 127.0.0.1:9092 --add --allow-principal User:mailer --operation Read --group mailer --group mailer.thanks
`, run(t, tool, env, "graph -format acl")); diff != "" {
		t.Errorf("ACLs (-want +got):\n%s", diff)
	}
}

// What is wrong with the list of services, or with one of them, is said by name.
func TestServicesThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	tool := cli.Tool{Services: []saga.Service{loyalty()}}
	for _, tt := range []struct {
		services, args string
		want           []string
	}{
		{"mailer", "graph", []string{"CONVERGE_SERVICES", "NAME=URL"}},
		{"mailer=ftp://nowhere", "graph", []string{"CONVERGE_SERVICES", "NAME=URL"}},
		{"", "graph -from-services", []string{"CONVERGE_SERVICES", "no service"}},
		{"mailer=http://127.0.0.1:1", "graph", []string{"mailer", "127.0.0.1:1", "refused"}},
		{"mail=" + running(t, mailer()), "graph", []string{"mail", `is the service "mailer"`}},
		{"", "rebuild nobody", []string{`no service "nobody"`, "CONVERGE_SERVICES=nobody=URL"}},
		{"mailer=" + running(t, mailer()), "rebuild mailer", []string{"rebuild mailer", "/rebuilds", "404"}},
	} {
		_, err := try(t, tool, map[string]string{"CONVERGE_SERVICES": tt.services}, tt.args)
		for _, want := range tt.want {
			if err == nil || errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), want) {
				t.Errorf("converge %s with CONVERGE_SERVICES=%s: %v; want an error with %q", tt.args, tt.services, err, want)
			}
		}
	}
	for _, args := range []string{"graph -format xml", "graph -format acl -check README.md", "groups extra"} {
		if _, err := try(t, tool, nil, args); !errors.Is(err, cli.ErrUsage) {
			t.Errorf("converge %s: %v, want wrong usage", args, err)
		}
	}
}

// Topics, groups and dead letters of a service that nobody compiled in are found at the broker.
func TestServiceThatIsNotCompiledIn(t *testing.T) {
	t.Parallel()
	c := brokertest.Fake(t)
	client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	tool := cli.Tool{Services: []saga.Service{loyalty()}}
	env := map[string]string{"KAFKA_BROKERS": strings.Join(c.Brokers(), ",")}
	if out := run(t, cli.Tool{}, env, "groups"); out != "No consumer groups.\n" {
		t.Errorf("groups of an empty cluster are\n%s", out)
	}
	env["CONVERGE_SERVICES"] = "mailer=" + running(t, mailer())
	want := "loyalty.dlq (1)\nmail.sent (2)\nmailer.dlq (1)\nmailer.thanks.dlq (1)\norder.placed (2)\npoints.granted (2)\n"
	if diff := cmp.Diff(want, run(t, tool, env, "topics -partitions 2")); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}
	delete(env, "CONVERGE_SERVICES")

	headers := []broker.Header{
		{Key: "dlq-id", Value: []byte("01980d2e-0000-7000-8000-000000000001")}, {Key: "dlq-reason", Value: []byte("no paper")},
		{Key: "dlq-handler", Value: []byte("mailer.thanks")}, {Key: "dlq-topic", Value: []byte("order.placed")}, {Key: "dlq-partition", Value: []byte("1")},
		{Key: "dlq-offset", Value: []byte("42")}, {Key: "dlq-attempts", Value: []byte("6")}, {Key: "dlq-time", Value: []byte("2026-11-28T10:11:12Z")},
	}
	for _, r := range []broker.Record{
		{Topic: "mailer.thanks.dlq", Key: []byte("o1"), Value: []byte("{}"), Headers: headers}, {Topic: "order.placed", Key: []byte("o2"), Value: []byte("{}")},
	} {
		if err := client.Produce(t.Context(), []broker.Record{r})[0]; err != nil {
			t.Fatal(err)
		}
	}
	if err := client.CommitFor(t.Context(), "mailer.thanks", map[broker.TopicPartition]int64{{Topic: "order.placed", Partition: 0}: 0}); err != nil {
		t.Fatal(err)
	}
	if out := run(t, tool, env, "dlq list -group mailer.thanks"); !strings.Contains(out, "mailer.thanks.dlq/0/0  o1   order.placed/1/42  6") {
		t.Errorf("dlq list says\n%s", out)
	}
	if out := run(t, tool, env, "dlq redrive -group mailer.thanks"); out != "mailer.thanks.dlq/0/0 -> order.placed\n" {
		t.Errorf("dlq redrive says\n%s", out)
	}
	if out := run(t, tool, env, "dlq list"); out != "No dead letters wait.\n" {
		t.Errorf("after the redrive, dlq list says\n%s", out)
	}
	want = `GROUP              TOPIC              PARTITIONS  LAG
converge-operator  loyalty.dlq        1           0
converge-operator  mailer.dlq         1           0
converge-operator  mailer.thanks.dlq  1           0
loyalty            order.placed       2           2
mailer.thanks      order.placed       2           2
`
	if diff := cmp.Diff(want, run(t, tool, env, "groups")); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if _, err := try(t, tool, env, "groups -group nobody"); err == nil || !strings.Contains(err.Error(), `no consumer group "nobody"; the consumer groups are converge-operator, loyalty, mailer.thanks`) {
		t.Errorf("a group that is not there: %v", err)
	}
}
