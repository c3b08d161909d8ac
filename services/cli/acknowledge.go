package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/cli"
	"github.com/converge-dev/converge/pkg/clock"
)

// acknowledge says that somebody knows of a finding, named as a check prints it.
func acknowledge(ctx context.Context, c *cli.Call) error {
	note := c.Flags.String("note", "", "what is known of it")
	until := c.Flags.String("until", "168h", "until when it alarms nobody: a time such as 2026-11-25T00:00:00Z, or a duration such as 48h")
	url := c.Flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	if err := c.ParseAfter(2); err != nil {
		return err
	}
	if *note == "" {
		return errors.New("-note must say what is known of it")
	}
	end, err := time.Parse(time.RFC3339, *until)
	if d, wrong := time.ParseDuration(*until); wrong == nil {
		end, err = clock.Now().Add(d), nil
	}
	if err != nil {
		return fmt.Errorf("-until %q is neither a time such as 2026-11-25T00:00:00Z nor a duration such as 48h", *until)
	}
	base, err := c.URL("checker", *url)
	if err != nil {
		return err
	}
	var a checker.Acknowledgement
	body := map[string]any{"kind": c.Flags.Arg(0), "subject": checker.ParseSubject(c.Flags.Arg(1)), "note": *note, "until": end, "by": whoAmI()}
	if err := cli.Ask(ctx, http.MethodPost, base+"/acknowledgements", body, http.StatusOK, &a); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	_, err = fmt.Fprintf(c.Out, "%s at %s is acknowledged until %s\n", a.Kind, checker.PrintSubject(a.Subject), a.Until.Format(time.RFC3339))
	return err
}

// listAcknowledged prints what somebody knows of.
func listAcknowledged(ctx context.Context, c *cli.Call) error {
	url := c.Flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	_, all, err := acknowledgements(ctx, c, *url)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		_, err = fmt.Fprintln(c.Out, "Nothing is acknowledged.")
		return err
	}
	table := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FOUND\tAT\tUNTIL\tBY\tNOTE")
	for _, a := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", a.Kind, checker.PrintSubject(a.Subject), a.Until.Format(time.RFC3339), a.By, a.Note)
	}
	return table.Flush()
}

// withdraw takes an acknowledgement back.
func withdraw(ctx context.Context, c *cli.Call) error {
	url := c.Flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	if err := c.ParseAfter(2); err != nil {
		return err
	}
	base, all, err := acknowledgements(ctx, c, *url)
	if err != nil {
		return err
	}
	kind, subject := c.Flags.Arg(0), checker.ParseSubject(c.Flags.Arg(1))
	for _, a := range all {
		if string(a.Kind) == kind && a.Subject == subject {
			var out struct{ Withdrawn bool }
			if err := cli.Ask(ctx, http.MethodDelete, base+"/acknowledgements/"+a.ID.String(), nil, http.StatusOK, &out); err != nil {
				return fmt.Errorf("withdraw: %w", err)
			}
		}
	}
	_, err = fmt.Fprintf(c.Out, "%s at %s is not acknowledged\n", kind, checker.PrintSubject(subject))
	return err
}

func acknowledgements(ctx context.Context, c *cli.Call, url string) (base string, all []checker.Acknowledgement, err error) {
	if base, err = c.URL("checker", url); err != nil {
		return "", nil, err
	}
	var listed struct{ Acknowledgements []checker.Acknowledgement }
	if err := cli.Ask(ctx, http.MethodGet, base+"/acknowledgements", nil, http.StatusOK, &listed); err != nil {
		return "", nil, fmt.Errorf("list what is acknowledged: %w", err)
	}
	return base, listed.Acknowledgements, nil
}
