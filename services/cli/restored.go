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

// retelling are those of them that read sides listen to: what the lost changes said has to be told anew.
var retelling = []string{"inventory", "profile"}

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
	if slices.Contains(retelling, name) {
		n, err := retell(ctx, base)
		if err != nil {
			return fmt.Errorf("%s: epoch %d, but not all that it holds was published again: %w; say once more that it was restored", name, is.Epoch, err)
		}
		fmt.Fprintf(c.Out, "%s has published %d %s as they are.\n", name, n, map[string]string{"inventory": "products", "profile": "profiles"}[name])
	}
	_, err = fmt.Fprintf(c.Out, "%s: epoch %d. Its versions are beyond those that were published before. The checker repairs nothing until somebody has looked "+
		"(converge check) and confirmed it (converge check -confirm).\n", name, is.Epoch)
	return err
}

// retell has a service publish all that it holds, and returns how much that is.
func retell(ctx context.Context, base string) (n int, err error) {
	for after := ""; ; {
		var page struct {
			Told int
			Next string
		}
		if err := cli.Ask(ctx, http.MethodPost, base+"/told-again", map[string]any{"after": after}, http.StatusOK, &page); err != nil {
			return n, err
		}
		if n += page.Told; page.Next == "" {
			return n, nil
		}
		after = page.Next
	}
}
