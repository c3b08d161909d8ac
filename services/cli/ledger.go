package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/cli"
	"github.com/converge-dev/converge/services/payment"
)

// correctLedger has payment post what a person has decided of the ledger. Sent again with the id that it printed,
// nothing is posted again.
func correctLedger(ctx context.Context, c *cli.Call) error {
	transfer := c.Flags.String("transfer", "", "the transfer that lacks an entry (default: the correction is a transfer of its own, and names both sides)")
	debit := c.Flags.String("debit", "", "whose account is debited; with -transfer only where it lacks a debit")
	credit := c.Flags.String("credit", "", "whose account is credited; with -transfer only where it lacks a credit")
	amount := c.Flags.Int64("amount", 0, "in minor units")
	currency := c.Flags.String("currency", "", "of the amount and the accounts, such as EUR")
	order := c.Flags.String("order", "", "the order that it is about; without -transfer")
	note := c.Flags.String("note", "", "why; it is kept")
	id := c.Flags.String("id", "", "the correction's id, to send one again (default: a new one)")
	dry := c.Flags.Bool("dry-run", false, "print what would be posted, and post nothing")
	url := c.Flags.String("url", "", "URL of payment (default: where it listens unless told otherwise)")
	if err := c.Parse(0, 0); err != nil {
		return err
	}
	body := map[string]any{"amount": *amount, "currency": *currency, "note": *note, "by": operator("converge ledger correct"), "dryRun": *dry}
	for field, text := range map[string]string{"debit": *debit, "credit": *credit} {
		if text != "" {
			body[field] = text
		}
	}
	for _, one := range []struct{ flag, field, text string }{{"-transfer", "transferId", *transfer}, {"-order", "orderId", *order}, {"-id", "correctionId", *id}} {
		if one.text == "" {
			continue
		}
		parsed, err := uuid.Parse(one.text)
		if err != nil {
			return fmt.Errorf("%s %q is no id, which is a UUID", one.flag, one.text)
		}
		body[one.field] = parsed
	}
	switch {
	case *note == "":
		return errors.New("-note must say why")
	case *id == "":
		fresh, err := uuid.NewV7()
		if err != nil {
			return err
		}
		body["correctionId"] = fresh
	}
	base, err := c.URL("payment", *url)
	if err != nil {
		return err
	}
	want, done := http.StatusCreated, "posted"
	if *dry {
		want, done = http.StatusOK, "would be posted"
	}
	var record payment.CorrectionRecord
	if err := cli.Ask(ctx, http.MethodPost, base+"/ledger/corrections", body, want, &record); err != nil {
		return fmt.Errorf("correction %s: %w", body["correctionId"], err)
	}
	table := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TRANSFER\tACCOUNT\tAMOUNT\tKIND")
	for _, e := range record.Entries {
		fmt.Fprintf(table, "%s\t%s\t%d %s\t%s\n", record.TransferID, e.AccountID, e.Amount, record.Currency, e.Kind)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Out, "Correction %s %s.\n", record.ID, done)
	return err
}
