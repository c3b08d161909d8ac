package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a person has decided is sent to payment as it was typed, and what was posted, or would be, is printed; a refusal
// is printed in payment's words.
func TestLedgerCorrect(t *testing.T) {
	t.Parallel()
	const correction, transfer, order = "01980d2e-0000-7000-8000-000000000001", "01980d2e-0000-7000-8000-000000000002", "01980d2e-0000-7000-8000-000000000003"
	var got map[string]any
	var path string
	refuse := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got, path = nil, r.Method+" "+r.URL.Path
		if err := json.Unmarshal(body, &got); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		switch {
		case refuse:
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"detail":"insufficient balance: 5 wanted, 0 available"}`) //nolint:errcheck // to the test
			return
		case got["dryRun"] == false:
			w.WriteHeader(http.StatusCreated)
		}
		io.WriteString(w, `{"correctionId":"`+correction+`","transferId":"`+transfer+`","currency":"EUR","entries":[{"accountId":"suspense.EUR","kind":"charge","amount":-5}]}`) //nolint:errcheck // to the test
	}))
	defer server.Close()
	term := terminal{T: t}
	args := []string{"ledger", "correct", "-url", server.URL, "-id", correction, "-transfer", transfer, "-debit", "suspense.EUR", "-amount", "5", "-currency", "EUR", "-note", "the bank says so"}
	table := "TRANSFER                              ACCOUNT       AMOUNT  KIND\n" + transfer + "  suspense.EUR  -5 EUR  charge\n"
	want := map[string]any{
		"correctionId": correction, "transferId": transfer, "debit": "suspense.EUR", "amount": 5.0, "currency": "EUR", "note": "the bank says so", "dryRun": false, "by": got["by"],
	}
	for _, tc := range []struct {
		more []string
		done string
		dry  bool
	}{{nil, "posted", false}, {[]string{"-dry-run"}, "would be posted", true}} {
		if diff := cmp.Diff(table+"Correction "+correction+" "+tc.done+".\n", term.run(append(args, tc.more...)...)); diff != "" {
			t.Errorf("printed (-want +got):\n%s", diff)
		}
		want["dryRun"], want["by"] = tc.dry, got["by"]
		if diff := cmp.Diff(want, got); diff != "" || got["by"] == "" || path != "POST /ledger/corrections" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	term.run("ledger", "correct", "-url", server.URL, "-debit", "ada", "-credit", "bob", "-amount", "5", "-currency", "EUR", "-note", "x", "-order", order)
	if got["credit"] != "bob" || got["debit"] != "ada" || got["orderId"] != order || got["transferId"] != nil || got["correctionId"] == nil {
		t.Errorf("sent %v", got)
	}

	refuse = true
	if _, _, err := term.try(args...); err == nil || err.Error() != "correction "+correction+": insufficient balance: 5 wanted, 0 available" {
		t.Errorf("refused: %v", err)
	}
	for want, args := range map[string][]string{
		"-note must say why":        {"-debit", "ada", "-credit", "bob", "-amount", "5", "-currency", "EUR"},
		`-transfer "7" is no id`:    {"-transfer", "7", "-note", "x"},
		`-order "order-1" is no id`: {"-order", "order-1", "-note", "x"},
		`-id "again" is no id`:      {"-id", "again", "-note", "x"},
	} {
		path = ""
		if _, _, err := term.try(append([]string{"ledger", "correct", "-url", server.URL}, args...)...); err == nil || !strings.HasPrefix(err.Error(), want) || path != "" {
			t.Errorf("%v: %v, sent %q", args, err, path)
		}
	}
}
