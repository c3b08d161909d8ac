// Package cli is the operator's command with the services of this repository compiled in: what [cli.Tool] can do for
// any services, and what is about these, such as the checker and the ledger. It talks to Kafka and to the services' own
// APIs, never to their databases.
package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/converge-dev/converge/pkg/cli"
	"github.com/converge-dev/converge/services/system"
)

// ErrUsage says that the command line was wrong; what would be right has been printed.
var ErrUsage = cli.ErrUsage

// ErrFound says that a check found something, which has been printed.
var ErrFound = fmt.Errorf("the services disagree: %w", cli.ErrReported)

// Main is the whole of the process.
func Main() { tool().Main() }

// Run carries out one command. The cluster is the one that KAFKA_BROKERS and the other KAFKA_ settings name.
func Run(ctx context.Context, args []string, getenv func(string) string, out, errOut io.Writer) error {
	return tool().Run(ctx, args, getenv, out, errOut)
}

func tool() cli.Tool {
	t := cli.Tool{Services: system.Choreography(), Commands: []cli.Command{
		{Name: "seed", Args: "[-inventory URL]", Help: "put the demonstration's products in stock", Run: seed},
		{Name: "order watch", Args: "ID [-url URL]", Help: "print what happens to an order until it is CONFIRMED or CANCELLED", Run: watchOrder},
		{
			Name: "check ack", Args: "KIND SUBJECT -note TEXT [-until TIME] [-url URL]", Run: acknowledge,
			Help: "say that you know of a finding, at an order's id or what else: it alarms nobody until then",
		},
		{Name: "check acks", Args: "[-url URL]", Help: "list the findings that somebody knows of", Run: listAcknowledged},
		{Name: "check unack", Args: "KIND SUBJECT [-url URL]", Help: "take that back", Run: withdraw},
		{
			Name: "check", Args: "[-order ID | -since TIME | -full] [-repair] [-confirm] [-url URL] [-all] [-json]", Run: check,
			Help: "check that order, inventory and payment agree; exit code 1 when something is found that nobody has acknowledged",
		},
		{
			Name: "restored", Args: "order|inventory|payment|profile [-url URL]", Run: restored,
			Help: "say that a service's database was restored from an older copy, and have it publish what it holds now",
		},
		{
			Name: "ledger correct", Run: correctLedger,
			Args: "[-transfer ID] [-debit ACCOUNT] [-credit ACCOUNT] -amount N -currency EUR -note TEXT [-order ID] [-id ID] [-dry-run] [-url URL]",
			Help: "post what a person has decided: move money, or add the entry that a transfer lacks",
		},
	}}
	for _, svc := range system.Services() {
		t.Places = append(t.Places, cli.Address{Service: svc.Name, URL: "http://" + svc.Addr})
	}
	return t
}

func seed(ctx context.Context, c *cli.Call) error {
	url := c.Flags.String("inventory", "http://127.0.0.1:8082", "URL of the inventory service")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	return system.Seed(ctx, *url)
}
