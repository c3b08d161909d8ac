package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/services/checker"
	"github.com/converge-dev/converge/services/system"
)

// ErrFound says that a check found something, which has been printed.
var ErrFound = errors.New("the services disagree")

// ErrBlind says that a part of a check could not look, which has been printed.
var ErrBlind = errors.New("the check could not look at everything")

// check has the checker look, and prints what it finds.
func check(ctx context.Context, c *call) error {
	order := c.flags.String("order", "", "check only this order")
	since := c.flags.String("since", "", "check the orders that were placed since then: a time such as 2026-11-25T00:00:00Z, or a duration such as 2h (default: all, and the stock and the ledger)")
	full := c.flags.Bool("full", false, "read what was audited before again, too; without it that is done in turns, within a day")
	repair := c.flags.Bool("repair", false, "repair what is found; without it nothing is changed")
	url := c.flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	asJSON := c.flags.Bool("json", false, "print the check as JSON")
	if err := c.parse(0, 0); err != nil {
		return err
	}
	body := map[string]any{"repair": *repair, "by": whoAmI()}
	switch {
	case *full && (*order != "" || *since != ""):
		return errors.New("-full is of a check of everything, without -order and -since")
	case *full:
		body["full"] = true
	case *order != "" && *since != "":
		return errors.New("-order and -since exclude each other")
	case *order != "":
		id, err := uuid.Parse(*order)
		if err != nil {
			return fmt.Errorf("-order %q is no order's id, which is a UUID", *order)
		}
		body["orderId"] = id
	case *since != "":
		at, err := parseSince(*since, time.Now())
		if err != nil {
			return err
		}
		body["since"] = at
	}
	base, err := addressOf("checker", *url)
	if err != nil {
		return err
	}
	var record checker.Record
	if err := ask(ctx, http.MethodPost, base+"/checks", body, http.StatusOK, &record); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if *asJSON {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(record)
	} else {
		err = printCheck(c.out, record)
	}
	switch {
	case err != nil:
	case len(record.Findings) > 0:
		err = ErrFound
	case len(record.Failed) > 0:
		err = ErrBlind
	}
	return err
}

// parseSince reads a moment, or how long ago it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d).UTC(), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("-since %q is neither a time such as 2026-11-25T00:00:00Z nor a duration such as 2h", text)
	}
	return at.UTC(), nil
}

// whoAmI is who asks, for the record.
func whoAmI() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "converge check, " + u.Username
	}
	return "converge check"
}

func printCheck(w io.Writer, r checker.Record) error {
	if len(r.Findings) > 0 {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "FOUND\tAT\tDETAIL\tREPAIR")
		for _, f := range r.Findings {
			at := f.Subject
			if f.OrderID != uuid.Nil {
				at = f.OrderID.String()
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Kind, at, f.Detail, repairText(f.Repair))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %d more\n", r.More)
	}
	what := fmt.Sprintf("%d orders", r.Checked)
	if r.Checked == 1 {
		what = "1 order"
	}
	_, err := fmt.Fprintf(w, "%s checked in %s (%d requests, %d bytes; %d rows digested), %d on their way; what changed since %s was not judged.\n",
		what, time.Duration(r.Cost.DurationMs)*time.Millisecond, r.Cost.Requests, r.Cost.Bytes, r.Cost.Rows, r.InFlight, r.Watermark.Format(time.RFC3339))
	for _, f := range r.Failed {
		fmt.Fprintf(w, "%s could not look: %s\n", f.Part, f.Detail)
	}
	if err == nil && len(r.Findings) == 0 && len(r.Failed) == 0 {
		_, err = fmt.Fprintln(w, "The services agree.")
	}
	return err
}

// repairText says what is to be done, or was, in few words.
func repairText(r checker.Repair) string {
	text := r.Action
	switch r.State {
	case checker.Planned:
		text = "would " + text
	case checker.Done, checker.Refused, checker.Failed:
		text += " " + strings.ToLower(string(r.State))
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}

// addressOf is where a service answers: at the URL, or where it listens unless told otherwise.
func addressOf(name, url string) (string, error) {
	if url != "" {
		return strings.TrimSuffix(url, "/"), nil
	}
	for _, svc := range system.Services() {
		if svc.Name == name {
			return "http://" + svc.Addr, nil
		}
	}
	return "", fmt.Errorf("there is no service %q", name)
}
