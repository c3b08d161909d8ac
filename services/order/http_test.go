package order

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestPostStoresTheOrderAndItsEvent(t *testing.T) {
	t.Parallel()
	c := setup(t)
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(draft("u-1")))
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	w := c.do(r)
	if w.Code != http.StatusAccepted {
		t.Fatalf("%d %s", w.Code, w.Body)
	}

	got := parse[Order](t, w)
	now := time.Now()
	want := Order{
		ID:        got.ID,
		Draft:     Draft{UserID: "u-1", Items: []Item{{"p-1", 2}, {"p-2", 1}}, Amount: 4200, Currency: "EUR"},
		Progress:  Progress{Status: Pending, History: []Entry{{At: now, Status: Pending, Event: "order.created"}}},
		CreatedAt: now,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(time.Minute)); diff != "" {
		t.Errorf("POST (-want +got):\n%s", diff)
	}
	if at := w.Header().Get("Location"); at != "/orders/"+got.ID.String() {
		t.Errorf("Location is %q", at)
	}
	if typ := w.Header().Get("Content-Type"); typ != "application/json" {
		t.Errorf("Content-Type is %q", typ)
	}
	if stored := c.get(w.Header().Get("Location")); stored.Body.String() != w.Body.String() {
		t.Errorf("GET gives another order than POST:\n%s%s", stored.Body, w.Body)
	}

	events := sagatest.Drain(t, c.db)
	if len(events) != 1 {
		t.Fatalf("%d events, want order.created alone", len(events))
	}
	m, err := saga.Decode(event.OrderCreated, events[0])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(event.OrderCreatedV1{
		OrderID: got.ID, UserID: "u-1", Items: []event.Item{{ProductID: "p-1", Quantity: 2}, {ProductID: "p-2", Quantity: 1}},
		Amount: 4200, Currency: "EUR",
	}, m.Data); diff != "" {
		t.Errorf("order.created (-want +got):\n%s", diff)
	}
	if m.Key != got.ID.String() || !strings.HasPrefix(m.Traceparent, "00-0af7651916cd43dd8448eb211c80319c-") {
		t.Errorf("order.created has the key %q and the trace %q", m.Key, m.Traceparent)
	}
}

// Each request is refused with a problem that names what is wrong.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	c := setup(t)
	with := func(field, value string) string {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(draft("u-1")), &fields); err != nil {
			t.Fatal(err)
		}
		if fields[field] = json.RawMessage(value); value == "" {
			delete(fields, field)
		}
		p, err := json.Marshal(fields)
		if err != nil {
			return strings.Replace(draft("u-1"), `"amount":4200`, `"amount":`+value, 1)
		}
		return string(p)
	}
	item := func(product, quantity string) string {
		return with("items", fmt.Sprintf(`[{"productId":%s,"quantity":%s}]`, product, quantity))
	}
	lines := strings.TrimSuffix(strings.Repeat(`{"productId":"p-1","quantity":1},`, 101), ",")
	id := uuid.NewString()

	for name, q := range map[string]struct {
		method, target, body string
		header               http.Header
		status               int
		field                string
	}{
		"no body":              {body: ``, status: 400, field: "body"},
		"malformed":            {body: `{"userId":`, status: 400, field: "body"},
		"two values":           {body: draft("u-1") + `{}`, status: 400, field: "body"},
		"not UTF-8":            {body: "{\"userId\":\"\xff\"}", status: 400, field: "body"},
		"a list":               {body: `[]`, status: 422, field: "body"},
		"null":                 {body: `null`, status: 422, field: "body"},
		"unknown field":        {body: with("discount", "1"), status: 422, field: "body.discount"},
		"other letters":        {body: with("Amount", "1"), status: 422, field: "body.Amount"},
		"field twice":          {body: strings.Replace(draft("u-1"), `"amount"`, `"amount":1,"amount"`, 1), status: 422, field: "body.amount"},
		"no user":              {body: with("userId", ""), status: 422, field: "body.userId"},
		"empty user":           {body: with("userId", `""`), status: 422, field: "body.userId"},
		"long user":            {body: with("userId", `"`+strings.Repeat("u", 129)+`"`), status: 422, field: "body.userId"},
		"line feed in user":    {body: with("userId", `"u\n1"`), status: 422, field: "body.userId"},
		"NUL in user":          {body: with("userId", `"u\u0000"`), status: 422, field: "body.userId"},
		"C1 control in user":   {body: with("userId", `"u\u0085"`), status: 422, field: "body.userId"},
		"user is a number":     {body: with("userId", `1`), status: 422, field: "body.userId"},
		"items missing":        {body: with("items", ""), status: 422, field: "body.items"},
		"items null":           {body: with("items", "null"), status: 422, field: "body.items"},
		"no items":             {body: with("items", "[]"), status: 422, field: "body.items"},
		"101 items":            {body: with("items", "["+lines+"]"), status: 422, field: "body.items"},
		"item null":            {body: with("items", "[null]"), status: 422, field: "body.items[0]"},
		"no quantity":          {body: with("items", `[{"productId":"p-1"}]`), status: 422, field: "body.items[0].quantity"},
		"quantity zero":        {body: item(`"p-1"`, `0`), status: 422, field: "body.items[0].quantity"},
		"quantity negative":    {body: item(`"p-1"`, `-1`), status: 422, field: "body.items[0].quantity"},
		"quantity fractional":  {body: item(`"p-1"`, `1.5`), status: 422, field: "body.items[0].quantity"},
		"quantity as 1.0":      {body: item(`"p-1"`, `1.0`), status: 422, field: "body.items[0].quantity"},
		"quantity huge":        {body: item(`"p-1"`, `1000001`), status: 422, field: "body.items[0].quantity"},
		"quantity 65 bits":     {body: item(`"p-1"`, `18446744073709551617`), status: 422, field: "body.items[0].quantity"},
		"quantity text":        {body: item(`"p-1"`, `"1"`), status: 422, field: "body.items[0].quantity"},
		"empty product":        {body: item(`""`, `1`), status: 422, field: "body.items[0].productId"},
		"long product":         {body: item(`"`+strings.Repeat("p", 65)+`"`, `1`), status: 422, field: "body.items[0].productId"},
		"product with a slash": {body: item(`"a/b"`, `1`), status: 422, field: "body.items[0].productId"},
		"product twice": {
			body:   with("items", `[{"productId":"p-1","quantity":1},{"productId":"p-1","quantity":1}]`),
			status: 422, field: "body.items[1].productId",
		},
		"amount missing":      {body: with("amount", ""), status: 422, field: "body.amount"},
		"amount null":         {body: with("amount", "null"), status: 422, field: "body.amount"},
		"amount negative":     {body: with("amount", "-1"), status: 422, field: "body.amount"},
		"amount too large":    {body: with("amount", "1000000000000001"), status: 422, field: "body.amount"},
		"amount overflows":    {body: with("amount", "9223372036854775808"), status: 422, field: "body.amount"},
		"amount 1e3":          {body: with("amount", "1e3"), status: 422, field: "body.amount"},
		"amount 1e999":        {body: with("amount", "1e999"), status: 422, field: "body.amount"},
		"amount NaN":          {body: with("amount", "NaN"), status: 400, field: "body"},
		"currency lower case": {body: with("currency", `"eur"`), status: 422, field: "body.currency"},
		"currency long":       {body: with("currency", `"EURO"`), status: 422, field: "body.currency"},
		"currency line feed":  {body: with("currency", `"EUR\n"`), status: 422, field: "body.currency"},
		"2 MiB":               {body: with("userId", `"`+strings.Repeat("u", 2<<20)+`"`), status: 413},
		"not JSON": {
			body: draft("u-1"), header: http.Header{"Content-Type": {"text/plain"}},
			status: 415, field: "header.Content-Type",
		},
		"empty key": {
			body: draft("u-1"), header: http.Header{"Idempotency-Key": {""}},
			status: 422, field: "header.Idempotency-Key",
		},
		"two keys": {
			body: draft("u-1"), header: http.Header{"Idempotency-Key": {"a", "b"}},
			status: 422, field: "header.Idempotency-Key",
		},
		"long key": {
			body: draft("u-1"), header: http.Header{"Idempotency-Key": {strings.Repeat("k", 256)}},
			status: 422, field: "header.Idempotency-Key",
		},
		"key not ASCII": {
			body: draft("u-1"), header: http.Header{"Idempotency-Key": {"clé"}},
			status: 422, field: "header.Idempotency-Key",
		},

		"bad id":            {method: "GET", target: "/orders/42", status: 422, field: "path.id"},
		"unknown id":        {method: "GET", target: "/orders/" + id, status: 404},
		"limit zero":        {method: "GET", target: "/orders?limit=0", status: 422, field: "query.limit"},
		"limit large":       {method: "GET", target: "/orders?limit=101", status: 422, field: "query.limit"},
		"limit text":        {method: "GET", target: "/orders?limit=all", status: 422, field: "query.limit"},
		"unknown status":    {method: "GET", target: "/orders?status=pending", status: 422, field: "query.status"},
		"cursor not base64": {method: "GET", target: "/orders?cursor=!", status: 422, field: "query.cursor"},
		"cursor too short":  {method: "GET", target: "/orders?cursor=AAAA", status: 422, field: "query.cursor"},
		"cursor is an id":   {method: "GET", target: "/orders?cursor=" + id, status: 422, field: "query.cursor"},
		"unknown parameter": {method: "GET", target: "/orders?user=u-1", status: 422, field: "query.user"},
		"no such method":    {method: "DELETE", target: "/orders/" + id, status: 405},
	} {
		t.Run(name, func(t *testing.T) {
			method, target := "POST", "/orders"
			if q.method != "" {
				method = q.method
			}
			if q.target != "" {
				target = q.target
			}
			r := httptest.NewRequest(method, target, strings.NewReader(q.body))
			r.Header.Set("Content-Type", "application/json")
			maps.Copy(r.Header, q.header)
			w := c.do(r)
			if w.Code != q.status || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Fatalf("%d %s %s, want the problem %d", w.Code, w.Header().Get("Content-Type"), w.Body, q.status)
			}
			p := parse[huma.ErrorModel](t, w)
			if p.Status != q.status || p.Title == "" || p.Detail == "" || !strings.HasPrefix(p.Type, "urn:problem-type:") {
				t.Errorf("not a complete problem: %s", w.Body)
			}
			if q.field == "" {
				return
			}
			if len(p.Errors) != 1 || p.Errors[0].Location != q.field || !strings.Contains(p.Errors[0].Message, "expected") {
				t.Errorf("%s, want one error at %s that says what is expected", w.Body, q.field)
			}
		})
	}
	if n := c.count(t, "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM outbox)"); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

// What is just within the limits is accepted.
func TestLimitsAreInclusive(t *testing.T) {
	t.Parallel()
	c := setup(t)
	items := make([]string, 100)
	for i := range items {
		items[i] = fmt.Sprintf(`{"productId":"%064d","quantity":1000000}`, i)
	}
	body := fmt.Sprintf(`{"userId":%q,"items":[%s],"amount":1000000000000000,"currency":"ZZZ"}`,
		strings.Repeat("ü", 128), strings.Join(items, ","))
	o := c.placed(t, body)
	if got := c.order(t, o.ID); len(got.Items) != 100 || got.Amount != 1e15 || got.Items[99].Quantity != 1e6 {
		t.Errorf("stored as %+v", got)
	}
	if n := len(sagatest.Drain(t, c.db)); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

func TestListOverHTTP(t *testing.T) {
	t.Parallel()
	c := setup(t)
	var want []Order
	for i := range 5 {
		o := c.placed(t, draft(fmt.Sprintf("u-%d", i%2)))
		if i%2 == 0 {
			want = append([]Order{o}, want...)
		}
	}
	var got []Order
	for target := "/orders?userId=u-0&status=PENDING&limit=2"; target != ""; {
		page := parse[pageBody](t, c.get(target))
		got = append(got, page.Orders...)
		if target = ""; page.NextCursor != "" {
			target = "/orders?userId=u-0&status=PENDING&limit=2&cursor=" + page.NextCursor
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("orders of u-0, newest first (-want +got):\n%s", diff)
	}
	if w := c.get("/orders?userId=nobody"); w.Body.String() != `{"orders":[]}`+"\n" {
		t.Errorf("nobody has %s", w.Body)
	}
}
