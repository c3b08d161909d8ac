package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/cli"
)

// ErrBlind says that a part of a check could not look, which has been printed.
var ErrBlind = errors.New("the check could not look at everything")

// check has the checker look, and prints what it finds.
func check(ctx context.Context, c *cli.Call) error {
	order := c.Flags.String("order", "", "check only this order")
	since := c.Flags.String("since", "", "check the orders that were placed since then: a time such as 2026-11-25T00:00:00Z, or a duration such as 2h (default: all, and the stock and the ledger)")
	full := c.Flags.Bool("full", false, "read what was audited before again, too; without it that is done in turns, within a day")
	repair := c.Flags.Bool("repair", false, "repair what is found; without it nothing is changed")
	confirm := c.Flags.Bool("confirm", false, "say that you have looked at why nothing is repaired: repair all the same, and take the databases that answer for the right ones")
	all := c.Flags.Bool("all", false, "print all findings, and not only the first 20")
	url := c.Flags.String("url", "", "URL of the checker (default: where it listens unless told otherwise)")
	asJSON := c.Flags.Bool("json", false, "print the check as JSON")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	body := map[string]any{"repair": *repair, "confirm": *confirm, "by": whoAmI()}
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
	base, err := c.URL("checker", *url)
	if err != nil {
		return err
	}
	var record checker.Record
	if err := cli.Ask(ctx, http.MethodPost, base+"/checks", body, http.StatusOK, &record); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if *asJSON {
		enc := json.NewEncoder(c.Out)
		enc.SetIndent("", "  ")
		err = enc.Encode(record)
	} else {
		err = printCheck(c.Out, record, *all)
	}
	unknown := func(f checker.Finding) bool { return f.Acknowledged == nil }
	switch {
	case err != nil:
	case slices.ContainsFunc(record.Findings, unknown) || record.More > 0:
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
	const command = "converge check"
	if name := operator(command); name != command {
		return command + ", " + name
	}
	return command
}

// operator is who uses the command, for the record, or the command itself where nobody knows.
func operator(command string) string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return command
}
