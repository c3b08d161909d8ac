package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/converge-dev/converge/pkg/checker"
)

// firstFindings are printed, unless all are asked for.
const firstFindings = 20

// printCheck prints how many findings there are of each kind, the first ones, and what an operator has to do before
// anything is repaired.
func printCheck(w io.Writer, r checker.Record, all bool) error {
	if len(r.Findings) > 0 {
		fmt.Fprintln(w, countsText(r.Kinds))
		shown := r.Findings
		if !all {
			shown = shown[:min(len(shown), firstFindings)]
		}
		if err := printFindings(w, shown); err != nil {
			return err
		}
		if left := len(r.Findings) - len(shown); left > 0 {
			fmt.Fprintf(w, "and %d more, which -all prints", left+r.More)
		} else if r.More > 0 {
			fmt.Fprintf(w, "and %d more", r.More)
		}
		if len(shown) < len(r.Findings)+r.More {
			fmt.Fprintln(w)
		}
	}
	if r.Braked != "" {
		fmt.Fprintf(w, "Nothing is repaired: %s.\nDo ORDER_URL, INVENTORY_URL, PAYMENT_URL, PROFILE_URL and SEARCH_URL of the checker name the right services, and has each its database, neither empty nor an older copy? "+
			"If so, and the findings are right: converge check -repair -confirm\n", r.Braked)
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

// countsText says how many findings there are of each kind, such as "Found 3: 2 confirmed-not-paid, 1 stock-mismatch".
func countsText(kinds map[checker.Kind]int) string {
	total := 0
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		total += kinds[kind]
		parts = append(parts, fmt.Sprintf("%d %s", kinds[kind], kind))
	}
	return fmt.Sprintf("Found %d: %s", total, strings.Join(parts, ", "))
}

func printFindings(w io.Writer, found []checker.Finding) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FOUND\tAT\tDETAIL\tREPAIR")
	for _, f := range found {
		text := repairText(f.Repair)
		if a := f.Acknowledged; a != nil {
			text += fmt.Sprintf("; acknowledged until %s by %s: %s", a.Until.Format(time.RFC3339), a.By, a.Note)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", f.Kind, f.Place(), cell(f.Detail), cell(text))
	}
	return table.Flush()
}

// cell is a text for people that stays in its column: a user's further account has a tab before its currency.
func cell(text string) string { return strings.ReplaceAll(text, "\t", " in ") }

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
