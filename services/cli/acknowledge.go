package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/clock"
)

// placeOf is where a finding was made: an order, or what else it is about.
func placeOf(f checker.Finding) string {
	if f.OrderID != uuid.Nil {
		return f.OrderID.String()
	}
	return f.Subject
}

// acknowledge says that somebody knows of a finding.
func acknowledge(ctx context.Context, c *call) error {
	note := c.flags.String("note", "", "what is known of it")
	until := c.flags.String("until", "168h", "until when it alarms nobody: a time such as 2026-11-25T00:00:00Z, or a duration such as 48h")
	url := c.flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	if err := c.parseAfter(2); err != nil {
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
	base, err := addressOf("checker", *url)
	if err != nil {
		return err
	}
	var a checker.Acknowledgement
	body := map[string]any{"kind": c.flags.Arg(0), "subject": c.flags.Arg(1), "note": *note, "until": end, "by": whoAmI()}
	if err := ask(ctx, http.MethodPost, base+"/acknowledgements", body, http.StatusOK, &a); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "%s at %s is acknowledged until %s\n", a.Kind, a.Subject, a.Until.Format(time.RFC3339))
	return err
}

// listAcknowledged prints what somebody knows of.
func listAcknowledged(ctx context.Context, c *call) error {
	url := c.flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	_, all, err := acknowledgements(ctx, *url)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		_, err = fmt.Fprintln(c.out, "Nothing is acknowledged.")
		return err
	}
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FOUND\tAT\tUNTIL\tBY\tNOTE")
	for _, a := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", a.Kind, a.Subject, a.Until.Format(time.RFC3339), a.By, a.Note)
	}
	return table.Flush()
}

// withdraw takes an acknowledgement back.
func withdraw(ctx context.Context, c *call) error {
	url := c.flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	if err := c.parseAfter(2); err != nil {
		return err
	}
	base, all, err := acknowledgements(ctx, *url)
	if err != nil {
		return err
	}
	kind, subject := c.flags.Arg(0), c.flags.Arg(1)
	for _, a := range all {
		if string(a.Kind) == kind && a.Subject == subject {
			var out struct{ Withdrawn bool }
			if err := ask(ctx, http.MethodDelete, base+"/acknowledgements/"+a.ID.String(), nil, http.StatusOK, &out); err != nil {
				return fmt.Errorf("withdraw: %w", err)
			}
		}
	}
	_, err = fmt.Fprintf(c.out, "%s at %s is not acknowledged\n", kind, subject)
	return err
}

func acknowledgements(ctx context.Context, url string) (base string, all []checker.Acknowledgement, err error) {
	if base, err = addressOf("checker", url); err != nil {
		return "", nil, err
	}
	var listed struct{ Acknowledgements []checker.Acknowledgement }
	if err := ask(ctx, http.MethodGet, base+"/acknowledgements", nil, http.StatusOK, &listed); err != nil {
		return "", nil, fmt.Errorf("list what is acknowledged: %w", err)
	}
	return base, listed.Acknowledgements, nil
}

// parseAfter reads so many arguments that come before the flags, which reads better than the other way round, or after them.
func (c *call) parseAfter(n int) error {
	first := 0
	for first < min(n, len(c.args)) && !strings.HasPrefix(c.args[first], "-") {
		first++
	}
	c.args = append(c.args[first:len(c.args):len(c.args)], c.args[:first]...)
	return c.parse(n, n)
}
