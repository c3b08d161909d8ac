package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/cli"
	"github.com/converge-dev/converge/pkg/facts"
)

// identified are the services whose databases know when they were restored.
var identified = []string{"order", "inventory", "payment", "profile"}

// restored tells a service that its database was restored from an older copy.
func restored(ctx context.Context, c *cli.Call) error {
	url := c.Flags.String("url", "", "URL of the service (default: where it listens unless told otherwise)")
	if err := c.ParseAfter(1); err != nil {
		return err
	}
	name := c.Flags.Arg(0)
	if !slices.Contains(identified, name) {
		return fmt.Errorf("%q cannot be told; %s can", name, strings.Join(identified, ", "))
	}
	base, err := c.URL(name, *url)
	if err != nil {
		return err
	}
	var was, is facts.Identity
	if err := cli.Ask(ctx, http.MethodGet, base+"/facts/identity", nil, http.StatusOK, &was); err != nil {
		return fmt.Errorf("restored %s: %w", name, err)
	}
	if err := cli.Ask(ctx, http.MethodPost, base+"/restored", map[string]any{"seen": was.Epoch}, http.StatusOK, &is); err != nil {
		return fmt.Errorf("restored %s: %w", name, err)
	}
	_, err = fmt.Fprintf(c.Out, "%s: epoch %d. Its versions are beyond those that were published before. The checker repairs nothing until somebody has looked "+
		"(converge check) and confirmed it (converge check -confirm).\n", name, is.Epoch)
	return err
}
