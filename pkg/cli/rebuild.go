package cli

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/converge-dev/converge/pkg/readside"
)

// rebuild has a read side build itself anew, and waits until it serves what it has built.
func rebuild(ctx context.Context, c *Call) error {
	url := c.Flags.String("url", "", "URL of the service (default: where it listens unless told otherwise)")
	partial := c.Flags.Bool("partial", false, "rebuild although the topics no longer hold all there was")
	if err := c.ParseAfter(1); err != nil {
		return err
	}
	name := c.Flags.Arg(0)
	base, err := c.URL(name, *url)
	if err != nil {
		return err
	}
	path := "/rebuilds"
	if *partial {
		path += "?partial=true"
	}
	var g readside.Generation
	if err := Ask(ctx, http.MethodPost, base+path, nil, http.StatusAccepted, &g); err != nil {
		return fmt.Errorf("rebuild %s: %w", name, err)
	}
	fmt.Fprintf(c.Out, "%s: building generation %d\n", name, g.ID)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for g.State == "BUILDING" {
		select {
		case <-ctx.Done():
			fmt.Fprintf(c.Out, "%s goes on with it: %s/rebuilds/%d\n", name, base, g.ID)
			return ctx.Err()
		case <-tick.C:
		}
		if err := Ask(ctx, http.MethodGet, fmt.Sprintf("%s/rebuilds/%d", base, g.ID), nil, http.StatusOK, &g); err != nil {
			return fmt.Errorf("rebuild %s: %w", name, err)
		}
	}
	if g.State == "FAILED" {
		return fmt.Errorf("rebuild %s: %s; the generation before it goes on serving", name, g.Error)
	}
	fmt.Fprintf(c.Out, "%s: generation %d serves, from %d records", name, g.ID, g.Records)
	if g.LeftOut > 0 {
		fmt.Fprintf(c.Out, ", %d of which no code could handle", g.LeftOut)
	}
	fmt.Fprintln(c.Out)
	return nil
}
