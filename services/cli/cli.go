// Package cli is the operator's command: topics, dead letters, the choreography's graph, the ledger's corrections. It talks to Kafka and to the
// services' own APIs, never to their databases.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/system"
)

// ErrUsage says that the command line was wrong; what would be right has been printed.
var ErrUsage = errors.New("wrong usage")

type command struct {
	name string
	args string
	help string
	run  func(ctx context.Context, c *call) error
}

// call is one command with its arguments.
type call struct {
	flags  *flag.FlagSet
	args   []string
	getenv func(string) string
	out    io.Writer
}

func commands() []command {
	return []command{
		{"topics", "[-partitions N]", "create the topics of all services; those that exist stay as they are", createTopics},
		{"graph", "[-check FILE]", "print the choreography as a Mermaid flowchart, or check that a document shows it", graph},
		{"seed", "[-inventory URL]", "put the demonstration's products in stock", seed},
		{"order watch", "ID [-url URL]", "print what happens to an order until it is CONFIRMED or CANCELLED", watchOrder},
		{"rebuild", "search|analytics [-url URL] [-partial]", "have a read side build itself anew from the topics, while it serves", rebuild},
		{"check ack", "KIND SUBJECT -note TEXT [-until TIME] [-url URL]", "say that you know of a finding, at an order's id or what else: it alarms nobody until then", acknowledge},
		{"check acks", "[-url URL]", "list the findings that somebody knows of", listAcknowledged},
		{"check unack", "KIND SUBJECT [-url URL]", "take that back", withdraw},
		{
			"check", "[-order ID | -since TIME | -full] [-repair] [-confirm] [-url URL] [-all] [-json]",
			"check that order, inventory and payment agree; exit code 1 when something is found that nobody has acknowledged", check,
		},
		{"restored", "order|inventory|payment|profile [-url URL]", "say that a service's database was restored from an older copy, and have it publish what it holds now", restored},
		{"ledger correct", "[-transfer ID] [-debit ACCOUNT] [-credit ACCOUNT] -amount N -currency EUR -note TEXT [-order ID] [-id ID] [-dry-run] [-url URL]", "post what a person has decided: move money, or add the entry that a transfer lacks", correctLedger},
		{"dlq list", "[-group GROUP] [-all]", "list the dead letters that wait: where they lie, where they come from, why", dlqList},
		{"dlq show", "TOPIC/PARTITION/OFFSET", "print one dead letter with its headers and value", dlqShow},
		{"dlq redrive", "TOPIC/PARTITION/OFFSET... | -group GROUP", "put dead letters back where they came from; twice is as good as once", dlqRedrive},
		{"dlq pass", "TOPIC/PARTITION/OFFSET... | -group GROUP", "say that dead letters are dealt with: they wait no more", dlqPass},
	}
}

// Run carries out one command. The cluster is the one that KAFKA_BROKERS and the other KAFKA_ settings name.
func Run(ctx context.Context, args []string, getenv func(string) string, out, errOut io.Writer) error {
	for _, cmd := range commands() {
		rest, ok := match(cmd.name, args)
		if !ok {
			continue
		}
		c := &call{flags: flag.NewFlagSet("converge "+cmd.name, flag.ContinueOnError), args: rest, getenv: getenv, out: out}
		c.flags.SetOutput(errOut)
		c.flags.Usage = func() {
			fmt.Fprintf(errOut, "usage: converge %s %s\n%s\n", cmd.name, cmd.args, cmd.help)
			c.flags.PrintDefaults()
		}
		return cmd.run(ctx, c)
	}
	usage(errOut)
	return ErrUsage
}

// match compares a command's words with the first arguments.
func match(name string, args []string) (rest []string, ok bool) {
	var words int
	for word := range strings.FieldsSeq(name) {
		if words >= len(args) || args[words] != word {
			return nil, false
		}
		words++
	}
	return args[words:], true
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage: converge COMMAND\n\nCommands:")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, cmd := range commands() {
		fmt.Fprintf(table, "  %s %s\t%s\n", cmd.name, cmd.args, cmd.help)
	}
	_ = table.Flush() // of a terminal that is gone
	fmt.Fprintln(w, "\nKafka is reached at KAFKA_BROKERS (default 127.0.0.1:9092).")
}

// parse reads the flags and checks the number of arguments that remain.
func (c *call) parse(least, most int) error {
	if err := c.flags.Parse(c.args); err != nil {
		return ErrUsage
	}
	if n := c.flags.NArg(); n < least || (most >= 0 && n > most) {
		c.flags.Usage()
		return ErrUsage
	}
	return nil
}

// connect opens the cluster and makes sure that it is there: of the errors that follow, not all would say where it was looked for.
func (c *call) connect(ctx context.Context) (*broker.Client, error) {
	s := app.NewSettings(c.getenv)
	cfg := app.ReadBroker(s, "converge-cli")
	if err := s.Err(); err != nil {
		return nil, err
	}
	client, err := broker.Open(cfg)
	if err != nil {
		return nil, err
	}
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("KAFKA_BROKERS: %w", err)
	}
	return client, nil
}

func createTopics(ctx context.Context, c *call) error {
	partitions := c.flags.Int("partitions", app.DefaultPartitions, "partitions of each topic: so many instances of a service can share its work")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	settings := app.NewSettings(c.getenv)
	replication := app.ReadReplication(settings)
	if err := settings.Err(); err != nil {
		return err
	}
	specs, err := saga.Topics(*partitions, system.Choreography()...)
	if err != nil {
		return err
	}
	for i := range specs {
		specs[i].Replication = replication
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.EnsureTopics(ctx, specs); err != nil {
		return err
	}
	for _, s := range specs {
		fmt.Fprintf(c.out, "%s (%d)\n", s.Name, s.Partitions)
	}
	return nil
}

func graph(_ context.Context, c *call) error {
	check := c.flags.String("check", "", "fail unless this document shows the graph as it is")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	drawn := saga.Mermaid(system.Choreography()...)
	if *check == "" {
		_, err := io.WriteString(c.out, drawn)
		return err
	}
	doc, err := os.ReadFile(*check)
	if err != nil {
		return err
	}
	if !strings.Contains(string(doc), "```mermaid\n"+drawn+"```\n") {
		return fmt.Errorf("%s does not show the choreography as the routes declare it; put the output of `converge graph` into its mermaid block", *check)
	}
	return nil
}

func seed(ctx context.Context, c *call) error {
	url := c.flags.String("inventory", "http://127.0.0.1:8082", "URL of the inventory service")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	return system.Seed(ctx, *url)
}
