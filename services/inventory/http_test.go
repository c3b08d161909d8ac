package inventory

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/web"
)

// api is the service's HTTP side on the bundle's database.
func (b bundle) api() http.Handler {
	server := web.New(web.Config{Service: "inventory"})
	register(server.API, b.db, nil)
	return server
}

// send answers a request with headers, names and values in turn.
func send(t *testing.T, api http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	api.ServeHTTP(w, req)
	return w
}

// shown is an answer's status, and of a problem its type and its first place.
func shown(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var p struct {
		Type   string
		Errors []struct{ Location string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	if w.Code < 400 {
		return strconv.Itoa(w.Code)
	}
	place := ""
	if len(p.Errors) > 0 {
		place = p.Errors[0].Location
	}
	return fmt.Sprintf("%d %s %s", w.Code, strings.TrimPrefix(p.Type, web.TypePrefix), place)
}

// request answers with the status and the decoded body, without its times.
func request(t *testing.T, api http.Handler, method, path, body string) (int, map[string]any) {
	t.Helper()
	w := send(t, api, method, path, body)
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s %s: status %d, %q: %v", method, path, w.Code, w.Body, err)
	}
	if want := "application/problem+json"; w.Code >= 400 && w.Header().Get("Content-Type") != want {
		t.Errorf("%s %s: the %d is %s, want %s", method, path, w.Code, w.Header().Get("Content-Type"), want)
	}
	dropTimes(t, got)
	delete(got, "version") // turned_test.go looks at it
	if list, ok := got["products"].([]any); ok {
		for _, p := range list {
			dropTimes(t, p.(map[string]any))
			delete(p.(map[string]any), "version")
		}
	}
	return w.Code, got
}

// dropTimes removes what differs from run to run, and holds it to be recent and in UTC.
func dropTimes(t *testing.T, body map[string]any) {
	t.Helper()
	for _, name := range []string{"createdAt", "updatedAt", "releasedAt"} {
		text, ok := body[name].(string)
		if !ok {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || !strings.HasSuffix(text, "Z") || time.Since(at).Abs() > time.Hour {
			t.Errorf("%s is %s, want a recent time in UTC (%v)", name, text, err)
		}
		delete(body, name)
	}
}

func product(id string, available, reserved float64) map[string]any {
	return map[string]any{
		"productId": id, "name": "Tea", "price": 499.0, "currency": "EUR",
		"stock": available + reserved, "available": available, "reserved": reserved,
	}
}

// movement is the body of a movement, and movementOf its answer.
func movement(n int, kind string, units int) string {
	return fmt.Sprintf(`{"movementId": %q, "kind": %q, "units": %d}`, order(n), kind, units)
}

func movementOf(n int, kind string, units, delta, stock float64) map[string]any {
	return map[string]any{"movementId": order(n).String(), "productId": "tea", "kind": kind, "units": units, "delta": delta, "stock": stock}
}

func TestProductsOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	api := b.api()
	tea := func(stock string) string {
		return `{"name": "Tea", "price": 499, "currency": "EUR", "stock": ` + stock + `}`
	}
	for _, step := range []struct {
		name, method, path, body string
		status                   int
		want                     map[string]any
	}{
		{"create", "PUT", "/products/tea", tea("10"), 201, product("tea", 10, 0)},
		{"again", "PUT", "/products/tea", tea("10"), 200, product("tea", 10, 0)},
		{"an order holds 4", "", "", "", 0, nil},
		{"again, though it was ordered", "PUT", "/products/tea", tea("10"), 200, product("tea", 6, 4)},
		{"a count", "POST", "/products/tea/movements", movement(1, "count", 6), 201, movementOf(1, "count", 6, -4, 6)},
		{"only the reserved", "POST", "/products/tea/movements", movement(2, "loss", 2), 201, movementOf(2, "loss", 2, -2, 4)},
		{"put in", "POST", "/products/tea/movements", movement(3, "receipt", 10), 201, movementOf(3, "receipt", 10, 10, 14)},
		{"put in once", "POST", "/products/tea/movements", movement(3, "receipt", 10), 201, movementOf(3, "receipt", 10, 10, 14)},
		{"created again, though its stock moved", "PUT", "/products/tea", tea("10"), 200, product("tea", 10, 4)},
		{"get", "GET", "/products/tea", "", 200, product("tea", 10, 4)},
		{"list", "GET", "/products", "", 200, map[string]any{"products": []any{product("tea", 10, 4)}}},
	} {
		if step.method == "" {
			b.deliver(asked(t, 1, 4*499, "EUR", Line{"tea", 4}))
			continue
		}
		status, got := request(t, api, step.method, step.path, step.body)
		if diff := cmp.Diff(step.want, got); status != step.status || diff != "" {
			t.Errorf("%s: status %d, want %d; body (-want +got):\n%s", step.name, status, step.status, diff)
		}
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	ids := []string{"B", "Z.1", "_", "a", "a-1", "b"}
	var stock []Line
	for _, id := range ids {
		stock = append(stock, Line{id, 1})
	}
	api := setup(t, stock...).api()
	for _, limit := range []string{"1", "2", "3", "6", "100"} {
		var got []string
		for cursor, pages := "", 0; pages <= len(ids); pages++ {
			status, page := request(t, api, "GET", "/products?limit="+limit+cursor, "")
			if status != http.StatusOK {
				t.Fatalf("limit %s: %d %v", limit, status, page)
			}
			for _, p := range page["products"].([]any) {
				got = append(got, p.(map[string]any)["productId"].(string))
			}
			next, more := page["nextCursor"].(string)
			if !more {
				break
			}
			cursor = "&cursor=" + next
		}
		if diff := cmp.Diff(ids, got); diff != "" {
			t.Errorf("limit %s (-want +got):\n%s", limit, diff)
		}
	}
}

func TestReservationsOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 5})
	b.deliver(created(t, 1, Line{"tea", 2}), created(t, 2, Line{"tea", 2}), created(t, 3, Line{"tea", 2}))
	b.deliver(unpaid(t, 2), unpaid(t, 4))
	api := b.api()
	items := []any{map[string]any{"productId": "tea", "quantity": 2.0}}
	for n, want := range []map[string]any{
		1: {"status": "RESERVED", "items": items},
		2: {"status": "RELEASED", "items": items},
		3: {"status": "REFUSED", "items": []any{}, "reason": "out of stock: tea: 2 wanted, 1 available",
			"reasonCode": "out-of-stock", "reasonParameters": map[string]any{"productId": "tea", "wanted": "2", "available": "1"}},
		4: {"status": "RELEASED", "items": []any{}, "reason": "released before it was reserved", "reasonCode": "order-cancelled"},
	} {
		if n == 0 {
			continue
		}
		want["orderId"] = order(n).String()
		status, got := request(t, api, "GET", "/reservations/"+order(n).String(), "")
		if diff := cmp.Diff(want, got); status != http.StatusOK || diff != "" {
			t.Errorf("order %d: status %d, body (-want +got):\n%s", n, status, diff)
		}
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10}, Line{"full", maxUnits})
	b.deliver(created(t, 1, Line{"tea", 4}))
	api := b.api()
	put := func(name, price, currency, stock string) string {
		return `{"name": ` + name + `, "price": ` + price + `, "currency": ` + currency + `, "stock": ` + stock + `}`
	}
	const ok = `{"name": "Tea", "price": 1, "currency": "EUR", "stock": 1}`
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		typ, field               string
	}{
		{"no such product", "GET", "/products/none", "", 404, "not-found", ""},
		{"a movement of no such product", "POST", "/products/none/movements", movement(1, "receipt", 1), 404, "not-found", ""},
		{"movements of no such product", "GET", "/products/none/movements", "", 404, "not-found", ""},
		{"no such reservation", "GET", "/reservations/" + order(9).String(), "", 404, "not-found", ""},
		{"another stock", "PUT", "/products/tea", put(`"Tea"`, "1", `"EUR"`, "11"), 422, "invalid-request", "body.stock"},
		{"a blind change", "PUT", "/products/tea", `{"name": "Tea", "price": 1, "currency": "EUR"}`, 428, "precondition-required", "header.If-Match"},
		{"no room", "POST", "/products/full/movements", movement(1, "receipt", 1), 409, "stock-limit", "body.units"},
		{"more lost than there is", "POST", "/products/tea/movements", movement(1, "loss", 11), 409, "stock-below-zero", "body.units"},
		{"an id that is none", "PUT", "/products/a%20b", ok, 422, "invalid-request", "path.id"},
		{"an id with NUL", "GET", "/products/a%00b", "", 400, "invalid-request", "path"},
		{"a long id", "PUT", "/products/" + strings.Repeat("x", 65), ok, 422, "invalid-request", "path.id"},
		{"an order id that is none", "GET", "/reservations/1", "", 422, "invalid-request", "path.orderId"},
		{"no body", "PUT", "/products/tea", "", 400, "malformed-body", "body"},
		{"no JSON", "PUT", "/products/tea", "{", 400, "malformed-body", "body"},
		{"no name", "PUT", "/products/tea", put(`""`, "1", `"EUR"`, "1"), 422, "invalid-request", "body.name"},
		{"a name with NUL", "PUT", "/products/tea", put(`"a\u0000"`, "1", `"EUR"`, "1"), 422, "invalid-request", "body.name"},
		{"a negative price", "PUT", "/products/tea", put(`"Tea"`, "-1", `"EUR"`, "1"), 422, "invalid-request", "body.price"},
		{"half a cent", "PUT", "/products/tea", put(`"Tea"`, "0.5", `"EUR"`, "1"), 422, "invalid-request", "body.price"},
		{"a currency that is none", "PUT", "/products/tea", put(`"Tea"`, "1", `"euro"`, "1"), 422, "invalid-request", "body.currency"},
		{"negative stock", "PUT", "/products/tea", put(`"Tea"`, "1", `"EUR"`, "-1"), 422, "invalid-request", "body.stock"},
		{"huge stock", "PUT", "/products/tea", put(`"Tea"`, "1", `"EUR"`, "9223372036854775808"), 422, "invalid-request", "body.stock"},
		{"too much stock", "PUT", "/products/tea", put(`"Tea"`, "1", `"EUR"`, "1000000000001"), 422, "invalid-request", "body.stock"},
		{"an unknown field", "PUT", "/products/tea", `{"name": "Tea", "price": 1, "currency": "EUR", "stock": 1, "reserved": 0}`, 422, "invalid-request", "body.reserved"},
		{"a receipt of nothing", "POST", "/products/tea/movements", movement(1, "receipt", 0), 422, "invalid-request", "body.units"},
		{"a loss of nothing", "POST", "/products/tea/movements", movement(1, "loss", 0), 422, "invalid-request", "body.units"},
		{"a negative receipt", "POST", "/products/tea/movements", movement(1, "receipt", -5), 422, "invalid-request", "body.units"},
		{"a movement of a kind that is none", "POST", "/products/tea/movements", movement(1, "gift", 1), 422, "invalid-request", "body.kind"},
		{"a movement without an id", "POST", "/products/tea/movements", `{"kind": "count", "units": 1}`, 422, "invalid-request", "body.movementId"},
		{"a movement with nobody's id", "POST", "/products/tea/movements", `{"movementId": "00000000-0000-0000-0000-000000000000", "kind": "count", "units": 1}`, 422, "invalid-request", "body.movementId"},
		{"a cursor of movements that is none", "GET", "/products/tea/movements?cursor=x", "", 422, "invalid-request", "query.cursor"},
		{"too many on a page", "GET", "/products?limit=101", "", 422, "invalid-request", "query.limit"},
		{"none on a page", "GET", "/products?limit=0", "", 422, "invalid-request", "query.limit"},
		{"a cursor that is none", "GET", "/products?cursor=%20", "", 422, "invalid-request", "query.cursor"},
		{"an unknown parameter", "GET", "/products?offset=5", "", 422, "invalid-request", "query.offset"},
		{"another method", "DELETE", "/products/tea", "", 405, "method-not-allowed", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, got := request(t, api, tt.method, tt.path, tt.body)
			var field any
			if errs, ok := got["errors"].([]any); ok && len(errs) > 0 {
				field = errs[0].(map[string]any)["location"]
			}
			if field == nil {
				field = ""
			}
			if status != tt.status || got["type"] != web.TypePrefix+tt.typ || field != tt.field || got["detail"] == "" {
				t.Errorf("got %d %v\nwant %d %s %s", status, got, tt.status, tt.typ, tt.field)
			}
		})
	}
	b.want([]string{"full: 1000000000000+0", "tea: 6+4"}, b.stock())
}
