// Package cli is the operator's command for any services that are built on this library: their topics, consumer groups
// and dead letters, the choreography's graph and ACLs, rebuilds. It finds topics and groups at the broker, and asks
// running services for what they declare; it never reads their databases.
//
// A repository has a command of its own with its services compiled in:
//
//	func main() { cli.Main(loyalty.Choreography()) }
//
// A [Tool] has more commands, and knows where the services answer.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// ErrUsage says that the command line was wrong; what would be right has been printed. The exit code is 2.
var ErrUsage = errors.New("wrong usage")

// ErrReported says that a command found something wrong and has printed it: the exit code is 1, and nothing more is
// printed.
var ErrReported = errors.New("reported")

// Tool is an operator's command with its subcommands. It is not changed by its use.
type Tool struct {
	Services []saga.Service // compiled in
	Places   []Address      // where services answer unless CONVERGE_SERVICES says otherwise
	Commands []Command      // its own, beside those of this package
}

// Address is where a service answers over HTTP.
type Address struct{ Service, URL string }

// Command is one subcommand.
type Command struct {
	Name string // its words, such as "dlq list"; a name that is the beginning of another comes behind it
	Args string // for the usage
	Help string // for the usage
	Run  func(ctx context.Context, c *Call) error
}

// Call is one command with its arguments.
type Call struct {
	Flags *flag.FlagSet // a command defines its flags, and then parses them with [Call.Parse] or [Call.ParseAfter]
	Out   io.Writer

	tool   Tool
	args   []string
	getenv func(string) string
}

func (t Tool) commands() []Command {
	return slices.Concat([]Command{
		{"topics", "[-partitions N]", "create the topics of all services; those that exist stay as they are", createTopics},
		{"groups", "[-group GROUP]", "list the consumer groups, and how far each is behind in its topics", listGroups},
		{
			"graph", "[-format mermaid|acl] [-from-services] [-check FILE]",
			"print the choreography as a Mermaid flowchart or as the ACLs it needs, or check that a document shows it", graph,
		},
		{"rebuild", "SERVICE [-url URL] [-partial]", "have a read side build itself anew from the topics, while it serves", rebuild},
		{"dlq list", "[-group GROUP] [-all]", "list the dead letters that wait: where they lie, where they come from, why", dlqList},
		{"dlq show", "TOPIC/PARTITION/OFFSET", "print one dead letter with its headers and value", dlqShow},
		{"dlq redrive", "TOPIC/PARTITION/OFFSET... | -group GROUP", "put dead letters back where they came from; twice is as good as once", dlqRedrive},
		{"dlq pass", "TOPIC/PARTITION/OFFSET... | -group GROUP", "say that dead letters are dealt with: they wait no more", dlqPass},
	}, t.Commands)
}

// Main is the whole of a process: a command for these services. See [Tool.Main].
func Main(services ...saga.Service) { Tool{Services: services}.Main() }

// Main carries out the process's command line and exits: with 0 when all is well, 1 when something failed or was found,
// 2 when the command line was wrong. SIGINT and SIGTERM end the command early.
func (t Tool) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := t.Run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, ErrUsage):
		os.Exit(2)
	case errors.Is(err, ErrReported):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "converge:", err)
		os.Exit(1)
	}
}

// Run carries out one command. The cluster is the one that KAFKA_BROKERS and the other KAFKA_ settings name.
func (t Tool) Run(ctx context.Context, args []string, getenv func(string) string, out, errOut io.Writer) error {
	for _, cmd := range t.commands() {
		rest, ok := match(cmd.Name, args)
		if !ok {
			continue
		}
		c := &Call{Flags: flag.NewFlagSet("converge "+cmd.Name, flag.ContinueOnError), Out: out, tool: t, args: rest, getenv: getenv}
		c.Flags.SetOutput(errOut)
		c.Flags.Usage = func() {
			fmt.Fprintf(errOut, "usage: converge %s %s\n%s\n", cmd.Name, cmd.Args, cmd.Help)
			c.Flags.PrintDefaults()
		}
		return cmd.Run(ctx, c)
	}
	t.usage(errOut)
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

func (t Tool) usage(w io.Writer) {
	fmt.Fprintln(w, "usage: converge COMMAND\n\nCommands:")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, cmd := range t.commands() {
		fmt.Fprintf(table, "  %s %s\t%s\n", cmd.Name, cmd.Args, cmd.Help)
	}
	_ = table.Flush() // of a terminal that is gone
	fmt.Fprintln(w, "\nKafka is reached at KAFKA_BROKERS (default 127.0.0.1:9092). CONVERGE_SERVICES, such as loyalty=http://127.0.0.1:8090,...,"+
		"\nadds services that are not compiled in, and says where others answer.")
}

// Parse reads the flags and checks the number of arguments that remain; a negative most is no limit.
func (c *Call) Parse(least, most int) error {
	if err := c.Flags.Parse(c.args); err != nil {
		return ErrUsage
	}
	if n := c.Flags.NArg(); n < least || (most >= 0 && n > most) {
		c.Flags.Usage()
		return ErrUsage
	}
	return nil
}

// ParseAfter reads n arguments that come before the flags, which reads better than the other way round, or after them.
func (c *Call) ParseAfter(n int) error {
	first := 0
	for first < min(n, len(c.args)) && !strings.HasPrefix(c.args[first], "-") {
		first++
	}
	c.args = append(c.args[first:len(c.args):len(c.args)], c.args[:first]...)
	return c.Parse(n, n)
}

// Connect opens the cluster and makes sure that it is there: of the errors that follow, not all would say where it was
// looked for. The caller closes the client.
func (c *Call) Connect(ctx context.Context) (*broker.Client, error) {
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
