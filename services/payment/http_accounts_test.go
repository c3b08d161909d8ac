package payment

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/web"
)

// api is the service's HTTP side on the bundle's database.
func (b bundle) api() http.Handler {
	server := web.New(web.Config{Service: "payment"})
	(&handlers{db: b.db, bank: b.bank()}).register(server.API)
	return server
}

// request answers with the status and the decoded body, without its times.
func request(t *testing.T, api http.Handler, method, path, body string) (int, map[string]any) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, req)
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s %s: status %d, %q: %v", method, path, w.Code, w.Body, err)
	}
	if want := "application/problem+json"; w.Code >= 400 && w.Header().Get("Content-Type") != want {
		t.Errorf("%s %s: the %d is %s, want %s", method, path, w.Code, w.Header().Get("Content-Type"), want)
	}
	delete(got, "createdAt")
	if list, ok := got["entries"].([]any); ok {
		for _, e := range list {
			delete(e.(map[string]any), "createdAt")
		}
	}
	return w.Code, got
}

func id(n int) string { return fmt.Sprintf("01980d2e-0000-7000-8000-1%011d", n) }

func TestMoneyOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 0
	api := b.api()
	account := func(name string, balance int, frozen bool) map[string]any {
		return map[string]any{"accountId": name, "currency": "EUR", "balance": float64(balance), "mayGoNegative": false, "frozen": frozen}
	}
	problem := func(status int, typ, title, detail string) map[string]any {
		return map[string]any{"type": web.TypePrefix + typ, "title": title, "status": float64(status), "detail": detail}
	}
	transfer := func(n int, from, to string, amount int, currency string) string {
		return fmt.Sprintf(`{"transferId": %q, "from": %q, "to": %q, "amount": %d, "currency": %q}`, id(n), from, to, amount, currency)
	}
	moved := func(n int, from, to string, amount int) map[string]any {
		return map[string]any{"transferId": id(n), "from": from, "to": to, "amount": float64(amount), "currency": "EUR"}
	}
	deposit := fmt.Sprintf(`{"depositId": %q, "accountId": "ada", "amount": 1000, "currency": "EUR"}`, id(1))
	deposited := map[string]any{"depositId": id(1), "accountId": "ada", "amount": 1000.0, "currency": "EUR"}
	entry := func(transfer, kind string, amount int, other string) map[string]any {
		return map[string]any{"transferId": transfer, "kind": kind, "amount": float64(amount), "counterparty": other}
	}
	unknown := func(field, who string) map[string]any {
		p := problem(422, "unknown-account", "Unknown account", "there is no account "+who+" in USD")
		p["errors"] = []any{map[string]any{"location": field, "message": "expected an account that exists in the currency", "value": who}}
		return p
	}
	short := problem(409, insufficientBalance, "Insufficient balance", "insufficient balance: 5000 wanted, 300 available")
	for _, step := range []struct {
		name, method, path, body string
		status                   int
		want                     map[string]any
	}{
		{"open", "POST", "/accounts", `{"accountId": "ada", "currency": "EUR"}`, 201, account("ada", 0, false)},
		{"open again", "POST", "/accounts", `{"accountId": "ada", "currency": "EUR"}`, 200, account("ada", 0, false)},
		{"the merchant's in another currency", "POST", "/accounts", `{"accountId": "merchant.EUR", "currency": "USD"}`, 409,
			problem(409, currencyMismatch, "Currency mismatch", "account merchant.EUR is in EUR, not in USD")},
		{"open another", "POST", "/accounts", `{"accountId": "bob smith/ü", "currency": "EUR"}`, 201, account("bob smith/ü", 0, false)},
		{"none", "GET", "/accounts/eve", "", 404, problem(404, "not-found", "Not found", "there is no account eve")},
		{"deposit", "POST", "/deposits", deposit, 201, deposited},
		{"deposit again", "POST", "/deposits", deposit, 201, deposited},
		{"get", "GET", "/accounts/ada", "", 200, account("ada", 1000, false)},
		{"transfer", "POST", "/transfers", transfer(2, "ada", "bob smith/ü", 700, "EUR"), 201, moved(2, "ada", "bob smith/ü", 700)},
		{"transfer again", "POST", "/transfers", transfer(2, "ada", "bob smith/ü", 700, "EUR"), 201, moved(2, "ada", "bob smith/ü", 700)},
		{"get the other", "GET", "/accounts/bob%20smith%2F%C3%BC", "", 200, account("bob smith/ü", 700, false)},
		{"more than there is", "POST", "/transfers", transfer(3, "ada", "bob smith/ü", 5000, "EUR"), 409, short},
		{"more than there is, again", "POST", "/transfers", transfer(3, "ada", "bob smith/ü", 5000, "EUR"), 409, short},
		{"a currency that neither has", "POST", "/transfers", transfer(4, "ada", "bob smith/ü", 1, "USD"), 422, unknown("body.from", "ada")},
		{"where it comes from is in another currency", "POST", "/deposits", fmt.Sprintf(`{"depositId": %q, "accountId": "merchant.EUR", "amount": 1, "currency": "USD"}`, id(7)), 409,
			problem(409, currencyMismatch, "Currency mismatch", "account merchant.EUR is in EUR, not in USD")},
		{"freeze", "PUT", "/accounts/ada/frozen", `{"frozen": true}`, 200, account("ada", 300, true)},
		{"frozen", "POST", "/transfers", transfer(5, "ada", "bob smith/ü", 1, "EUR"), 409,
			problem(409, accountFrozen, "Account frozen", "account ada is frozen")},
		{"thaw", "PUT", "/accounts/ada/frozen", `{"frozen": false}`, 200, account("ada", 300, false)},
		{"thawed", "POST", "/transfers", transfer(6, "ada", "bob smith/ü", 1, "EUR"), 201, moved(6, "ada", "bob smith/ü", 1)},
		{"freeze none", "PUT", "/accounts/eve/frozen", `{"frozen": true}`, 404, problem(404, "not-found", "Not found", "there is no account eve")},
		{"entries", "GET", "/accounts/ada/entries?limit=2", "", 200, map[string]any{"entries": []any{
			entry(id(6), "transfer", -1, "bob smith/ü"), entry(id(2), "transfer", -700, "bob smith/ü"),
		}}},
		{"entries of none", "GET", "/accounts/eve/entries", "", 404, problem(404, "not-found", "Not found", "there is no account eve")},
		{"where it comes from", "GET", "/accounts/external.EUR", "", 200, map[string]any{
			"accountId": "external.EUR", "currency": "EUR", "balance": -1000.0, "mayGoNegative": true, "frozen": false}},
	} {
		status, got := request(t, api, step.method, step.path, step.body)
		if step.name == "entries" {
			cursor, _ := got["nextCursor"].(string)
			delete(got, "nextCursor")
			_, rest := request(t, api, "GET", "/accounts/ada/entries?limit=2&cursor="+cursor, "")
			want(t, map[string]any{"entries": []any{entry(id(1), "deposit", 1000, "external.EUR")}}, rest)
		}
		if status != step.status {
			t.Errorf("%s: status %d, want %d", step.name, status, step.status)
		}
		want(t, step.want, got)
	}
	b.audit()
}

func TestBadMoneyRequests(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deposit("ada", 1)
	api := b.api()
	transfer := func(id, from, to, amount, currency string) string {
		return fmt.Sprintf(`{"transferId": %s, "from": %s, "to": %s, "amount": %s, "currency": %s}`, id, from, to, amount, currency)
	}
	fresh := func() string { return `"` + uuid.NewString() + `"` }
	used := fresh()
	if status, got := request(t, api, "POST", "/transfers", transfer(used, `"ada"`, `"external.EUR"`, "1", `"EUR"`)); status != 201 {
		t.Fatalf("%d %v", status, got)
	}
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		typ, field               string
	}{
		{"another body under a known id", "POST", "/transfers", transfer(used, `"ada"`, `"external.EUR"`, "2", `"EUR"`), 422, "transfer-id-reused", "body.transferId"},
		{"a transfer's id for a deposit", "POST", "/deposits", `{"depositId": ` + used + `, "accountId": "ada", "amount": 1, "currency": "EUR"}`, 422, "transfer-id-reused", "body.depositId"},
		{"from nobody", "POST", "/transfers", transfer(fresh(), `"eve"`, `"ada"`, "1", `"EUR"`), 422, "unknown-account", "body.from"},
		{"to nobody", "POST", "/transfers", transfer(fresh(), `"ada"`, `"eve"`, "1", `"EUR"`), 422, "unknown-account", "body.to"},
		{"to oneself", "POST", "/transfers", transfer(fresh(), `"ada"`, `"ada"`, "1", `"EUR"`), 422, "invalid-request", "body.to"},
		{"from where money comes from", "POST", "/transfers", transfer(fresh(), `"external.EUR"`, `"ada"`, "1", `"EUR"`), 422, "invalid-request", "body.from"},
		{"from where none has come from yet", "POST", "/transfers", transfer(fresh(), `"external.XXX"`, `"ada"`, "1", `"XXX"`), 422, "invalid-request", "body.from"},
		{"no id", "POST", "/transfers", transfer(`"1"`, `"ada"`, `"eve"`, "1", `"EUR"`), 422, "invalid-request", "body.transferId"},
		{"nothing", "POST", "/transfers", transfer(fresh(), `"ada"`, `"eve"`, "0", `"EUR"`), 422, "invalid-request", "body.amount"},
		{"less than nothing", "POST", "/transfers", transfer(fresh(), `"ada"`, `"eve"`, "-1", `"EUR"`), 422, "invalid-request", "body.amount"},
		{"half a cent", "POST", "/transfers", transfer(fresh(), `"ada"`, `"eve"`, "0.5", `"EUR"`), 422, "invalid-request", "body.amount"},
		{"too much", "POST", "/transfers", transfer(fresh(), `"ada"`, `"eve"`, "1000000000001", `"EUR"`), 422, "invalid-request", "body.amount"},
		{"a currency that is none", "POST", "/transfers", transfer(fresh(), `"ada"`, `"eve"`, "1", `"euro"`), 422, "invalid-request", "body.currency"},
		{"a deposit where money comes from", "POST", "/deposits", `{"depositId": ` + fresh() + `, "accountId": "external.EUR", "amount": 1, "currency": "EUR"}`, 422, "invalid-request", "body.accountId"},
		{"a deposit in another currency", "POST", "/deposits", `{"depositId": ` + fresh() + `, "accountId": "merchant.EUR", "amount": 1, "currency": "USD"}`, 409, "currency-mismatch", ""},
		{"an account without a name", "POST", "/accounts", `{"accountId": "", "currency": "EUR"}`, 422, "invalid-request", "body.accountId"},
		{"a name with NUL", "POST", "/accounts", `{"accountId": "a\u0000", "currency": "EUR"}`, 422, "invalid-request", "body.accountId"},
		{"a path with NUL", "GET", "/accounts/a%00", "", 400, "invalid-request", "path"},
		{"a path that is no text", "GET", "/accounts/%ff", "", 400, "invalid-request", "path"},
		{"frozen maybe", "PUT", "/accounts/ada/frozen", `{"frozen": "maybe"}`, 422, "invalid-request", "body.frozen"},
		{"a cursor that is none", "GET", "/accounts/ada/entries?cursor=x", "", 422, "invalid-request", "query.cursor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, got := request(t, api, tt.method, tt.path, tt.body)
			field := ""
			if errs, ok := got["errors"].([]any); ok && len(errs) > 0 {
				field, _ = errs[0].(map[string]any)["location"].(string)
			}
			if status != tt.status || got["type"] != web.TypePrefix+tt.typ || field != tt.field || got["detail"] == "" {
				t.Errorf("got %d %v\nwant %d %s %s", status, got, tt.status, tt.typ, tt.field)
			}
		})
	}
	b.audit()
}
