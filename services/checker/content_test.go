package checker

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
)

// wrongContent is what is wrong with orders that are in all three sets: in pairs that cancel each other out in any sum.
func (b *bundle) wrongContent(ids []uuid.UUID) map[uuid.UUID][]checker.Kind {
	b.Helper()
	want := map[uuid.UUID][]checker.Kind{}
	for i, one := range []struct {
		sql   string
		kinds []checker.Kind
	}{
		{`UPDATE payments SET amount = amount + 1 WHERE order_id = $1`, []checker.Kind{PaidWrongAmount}},
		{`UPDATE payments SET amount = amount - 1 WHERE order_id = $1`, []checker.Kind{PaidWrongAmount}},
		{`UPDATE payments SET currency = 'USD' WHERE order_id = $1`, []checker.Kind{PaidWrongAmount}},
		{`UPDATE payments SET user_id = 'u-2' WHERE order_id = $1`, []checker.Kind{PaidWrongUser}},
		{`UPDATE payments SET user_id = '' WHERE order_id = $1`, []checker.Kind{PaidWrongUser}},
		{`UPDATE orders SET user_id = 'u-2' WHERE id = $1`, []checker.Kind{PaidWrongUser}},
		{`UPDATE reservations SET items = '[{"productId":"p-1","quantity":2},{"productId":"p-2","quantity":1}]' WHERE order_id = $1`, []checker.Kind{ReservedWrongItems}},
		{`UPDATE reservations SET items = '[{"productId":"p-1","quantity":4},{"productId":"p-2","quantity":1}]' WHERE order_id = $1`, []checker.Kind{ReservedWrongItems}},
		{`UPDATE reservations SET items = items - 1 WHERE order_id = $1`, []checker.Kind{ReservedWrongItems}},
		{`UPDATE orders SET items = '[{"productId":"p-3","quantity":1}]' WHERE id = $1`, []checker.Kind{ReservedWrongItems}},
		{`UPDATE orders SET items = '7' WHERE id = $1`, []checker.Kind{ReservedWrongItems}},
	} {
		b.exec(one.sql, ids[i])
		want[ids[i]] = one.kinds
	}
	return want
}

// Services that hold the same orders must hold the same of them: who pays how much, and which items. What is wrong
// there is named, also where two errors in one span sum up to nothing, and is left to a person, with what to decide and
// the commands.
func TestContentDiffers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := idsOf(3000, time.Second)
	b.fill(ids...)
	want := b.wrongContent(ids[1000:])
	r := b.check(checker.Request{Repair: true})
	if diff := cmp.Diff(want, kindsOf(r)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, f := range r.Findings {
		if f.Repair.Action != "operator" || f.Repair.State != checker.None || !strings.Contains(f.Repair.Detail, "POST /") || !strings.Contains(f.Repair.Detail, f.OrderID.String()) {
			t.Errorf("%s: %+v", f, f.Repair)
		}
	}
}

// Beside a service of an earlier version, which tells less, the rest is compared and nothing is found that is not so.
func TestContentOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	fields := regexp.MustCompile(`,"(money|items|userId)":"(\\.|[^"\\])*"`)
	for service, kinds := range map[int][]checker.Kind{
		orders:       nil,
		reservations: {PaidWrongUser},
		payments:     {ReservedWrongItems},
	} {
		t.Run(sources[service].Set, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			ids := idsOf(50, time.Second)
			b.fill(ids...)
			want := map[uuid.UUID][]checker.Kind{}
			for id, found := range b.wrongContent(ids) {
				if len(kinds) == 1 && found[0] == kinds[0] {
					want[id] = found
				}
			}
			// Amounts are compared in sum then, in which two errors cancel each other out, but in a span that is listed
			// anyway.
			b.exec(`UPDATE payments SET amount = 100, currency = 'EUR'`)
			url := []*string{&b.cfg.OrderURL, &b.cfg.InventoryURL, &b.cfg.PaymentURL}[service]
			to, err := neturl.Parse(*url)
			if err != nil {
				t.Fatal(err)
			}
			proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				r.Out.Header.Del("Accept-Encoding")
			}}
			proxy.ModifyResponse = func(res *http.Response) error {
				body, err := io.ReadAll(res.Body)
				body = fields.ReplaceAll(body, nil)
				res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				res.Header.Set("Content-Length", strconv.Itoa(len(body)))
				return err
			}
			earlier := httptest.NewServer(proxy)
			t.Cleanup(earlier.Close)
			*url = earlier.URL
			if diff := cmp.Diff(want, kindsOf(b.check(checker.Request{}))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
