package cli

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/checker"
)

// Of many findings the counts and the first twenty are printed, and with all of them all that the report lists. An
// acknowledged one says who knows of it, and a check that is held back says what to look at and the command that goes
// on.
func TestPrintCheck(t *testing.T) {
	t.Parallel()
	found := func(n int) (all []checker.Finding) {
		for i := range n {
			all = append(all, checker.Finding{Kind: "stock-mismatch", Subject: fmt.Sprintf("p-%d", i), Detail: "7 and 8", Repair: checker.Repair{Action: "recount", State: checker.Planned}})
		}
		return all
	}
	record := func(n, more int) (r checker.Record) {
		r.Findings, r.More, r.Kinds = found(n), more, map[checker.Kind]int{"stock-mismatch": n + more, "paid-without-order": 2}
		return r
	}
	for name, tt := range map[string]struct {
		record checker.Record
		all    bool
		lines  int // of findings
		says   []string
	}{
		"few":          {record(3, 0), false, 3, []string{"Found 5: 2 paid-without-order, 3 stock-mismatch\n"}},
		"as many":      {record(20, 0), false, 20, nil},
		"many":         {record(21, 0), false, 20, []string{"and 1 more, which -all prints\n"}},
		"all of them":  {record(21, 0), true, 21, nil},
		"beyond them":  {record(100, 7), false, 20, []string{"and 87 more, which -all prints\n", "Found 109:"}},
		"all and more": {record(100, 7), true, 100, []string{"and 7 more\n"}},
	} {
		var out strings.Builder
		if err := printCheck(&out, tt.record, tt.all); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "would recount"); n != tt.lines || tt.says == nil && strings.Contains(out.String(), " more") {
			t.Errorf("%s: %d findings, want %d:\n%s", name, n, tt.lines, out.String())
		}
		for _, says := range tt.says {
			if !strings.Contains(out.String(), says) {
				t.Errorf("%s: prints\n%s\nwant %q", name, out.String(), says)
			}
		}
	}
	further := record(1, 0)
	further.Findings[0].Subject, further.Findings[0].Detail = "ada\tUSD", "ada\tUSD has less"
	var table strings.Builder
	if err := printCheck(&table, further, false); err != nil || !strings.Contains(table.String(), `  ada\tUSD  ada in USD has less  would recount`) {
		t.Errorf("a further account: %v\n%s", err, table.String())
	}
	r := record(1, 0)
	r.Braked = "300 of 300 orders are to be repaired"
	r.Findings[0].Acknowledged = &checker.Acknowledgement{Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), By: "ada", Note: "the count goes on"}
	var out strings.Builder
	if err := printCheck(&out, r, false); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{
		"would recount; acknowledged until 2026-01-02T03:04:05Z by ada: the count goes on\n", "Nothing is repaired: 300 of 300 orders are to be repaired.\n", "ORDER_URL", "converge check -repair -confirm\n",
	} {
		if !strings.Contains(out.String(), says) {
			t.Errorf("prints\n%s\nwant %q", out.String(), says)
		}
	}
}
