package order

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Two instances of the service get 64 requests with one key: one order, and everybody who is told of it is told the
// same.
func TestConcurrentPostsOfOneKey(t *testing.T) {
	t.Parallel()
	c := setup(t)
	instances := []client{c, serve(t, c.db)}
	bodies := map[string]int{}
	for _, w := range together(64, func(i int) *httptest.ResponseRecorder {
		return instances[i%2].post(draft("u-1"), "one")
	}) {
		switch w.Code {
		case http.StatusAccepted:
			bodies[w.Header().Get("Location")+w.Body.String()]++
		case http.StatusConflict:
			if p := parse[huma.ErrorModel](t, w); !strings.HasSuffix(p.Type, typeKeyInUse) || p.Errors[0].Location != "header.Idempotency-Key" {
				t.Errorf("conflict: %s", w.Body)
			}
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if len(bodies) != 1 {
		t.Errorf("%d different answers: %v", len(bodies), bodies)
	}
	w := instances[0].post(draft("u-1"), "one")
	if bodies[w.Header().Get("Location")+w.Body.String()] == 0 {
		t.Errorf("later, the answer is another: %s", w.Body)
	}
	orders, events := c.count(t, "SELECT count(*) FROM orders"), len(sagatest.Drain(t, c.db))
	if orders != 1 || events != 1 {
		t.Errorf("%d orders and %d events, want one of each", orders, events)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first := c.post(draft("u-1"), "k")
	if first.Code != http.StatusAccepted || first.Header().Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %v", first.Code, first.Header())
	}
	twice := `{"userId":"u-1","items":[{"productId":"p","quantity":1},{"productId":"p","quantity":1}],"amount":1,"currency":"EUR"}`
	refused := c.post(twice, "refused")
	if refused.Code != http.StatusUnprocessableEntity {
		t.Fatalf("%d %s", refused.Code, refused.Body)
	}

	for name, q := range map[string]struct {
		body, key string
		want      *httptest.ResponseRecorder
	}{
		"same":                {draft("u-1"), "k", first},
		"same, quoted key":    {draft("u-1"), `"k"`, first},
		"same, other spacing": {strings.NewReplacer(":", " : ", ",", "\n,").Replace(draft("u-1")), "k", first},
		"refusal":             {twice, "refused", refused},
	} {
		w := c.post(q.body, q.key)
		if w.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: not marked as replayed: %v", name, w.Header())
		}
		for _, h := range []string{"Location", "Content-Type"} {
			if got, want := w.Header().Get(h), q.want.Header().Get(h); got != want {
				t.Errorf("%s: %s is %q, want %q", name, h, got, want)
			}
		}
		if w.Code != q.want.Code || w.Body.String() != q.want.Body.String() {
			t.Errorf("%s: %d %s, want %d %s", name, w.Code, w.Body, q.want.Code, q.want.Body)
		}
	}

	for name, body := range map[string]string{
		"other amount": strings.Replace(draft("u-1"), "4200", "4201", 1),
		"other lines":  twice,
	} {
		w := c.post(body, "k")
		if p := parse[huma.ErrorModel](t, w); w.Code != http.StatusUnprocessableEntity || !strings.HasSuffix(p.Type, typeKeyReused) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another user's": c.post(draft("u-2"), "k"),
		"another key":    c.post(draft("u-1"), "K"),
		"no key":         c.post(draft("u-1"), ""),
	} {
		if w.Code != http.StatusAccepted || w.Header().Get("Location") == first.Header().Get("Location") || w.Header().Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %v, want an order of its own", name, w.Code, w.Header())
		}
	}
	if n := c.count(t, "SELECT count(*) FROM orders"); n != 4 {
		t.Errorf("%d orders, want 4", n)
	}
}

// One commit takes whatever comes together: new keys, replays, a reused key, a refusal, and requests without a key.
func TestMixedBatch(t *testing.T) {
	t.Parallel()
	c := setup(t)
	post := func(user, key string, amount int64) posting {
		d := Draft{UserID: user, Items: []Item{{"p-1", 1}}, Amount: amount, Currency: "EUR"}
		if amount == 0 {
			d.Items = []Item{{"p-1", 1}, {"p-1", 1}}
		}
		return newPosting(t.Context(), d, key, time.Now())
	}
	place := func(postings ...posting) (lines []string) {
		results, err := c.placer.place(t.Context(), postings)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if p := (*huma.ErrorModel)(nil); errors.As(r.Err, &p) {
				lines = append(lines, fmt.Sprint(p.Status, " ", p.Type))
			} else {
				lines = append(lines, fmt.Sprint(r.Value.Status, " ", r.Value.Header["Location"], " ", r.Value.replayed))
			}
		}
		return lines
	}
	a, b, refused, plain := post("u-1", "a", 1), post("u-1", "b", 1), post("u-1", "r", 0), post("u-1", "", 1)
	where := func(p posting) string { return "/orders/" + p.order.ID.String() }
	got := place(a, b, refused, plain)
	want := []string{"202 " + where(a) + " false", "202 " + where(b) + " false", "422  false", "202 " + where(plain) + " false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}

	other := post("u-2", "a", 1)
	got = place(post("u-1", "b", 1), other, post("u-1", "a", 2), post("u-1", "r", 0), post("u-2", "a", 1), post("u-1", "a", 1))
	want = []string{
		"202 " + where(b) + " true", "202 " + where(other) + " false", "422 " + web.TypePrefix + typeKeyReused,
		"422  true", "409 " + web.TypePrefix + typeKeyInUse, "202 " + where(a) + " true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("then (-want +got):\n%s", diff)
	}
	place(post("u-1", "a", 1)) // a replay alone leaves nothing to write
	if orders, events := c.count(t, "SELECT count(*) FROM orders"), len(sagatest.Drain(t, c.db)); orders != 4 || events != 4 {
		t.Errorf("%d orders and %d events, want 4 of each", orders, events)
	}
	if n := testutil.ToFloat64(c.metrics.orders.WithLabelValues("PENDING")); n != 4 {
		t.Errorf("%v orders counted as accepted, want 4", n)
	}
}

// A replay answers what was stored then, though the order has settled since.
func TestReplayIsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first := c.post(draft("u-1"), "k")
	id := parse[Order](t, first).ID
	sagatest.Drain(t, c.db)
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, id))
	if again := c.post(draft("u-1"), "k"); again.Body.String() != first.Body.String() || again.Code != first.Code {
		t.Errorf("%d %s, want %s", again.Code, again.Body, first.Body)
	}
	if o := c.order(t, id); o.Status != Confirmed {
		t.Errorf("the order is %s", o.Status)
	}
}

// While a transaction is at work on a key, nobody else is; when that is rolled back, the key is free.
func TestKeyOfAnUnfinishedRequest(t *testing.T) {
	t.Parallel()
	c := setup(t)
	err := pg.InTx(t.Context(), c.db, func(tx pgx.Tx) error {
		var d Draft
		if err := json.Unmarshal([]byte(draft("u-1")), &d); err != nil {
			return err
		}
		key := newPosting(t.Context(), d, "k", time.Now()).key
		if _, err := c.placer.keys.Claim(t.Context(), tx, []idempotency.Key{*key}); err != nil {
			return err
		}
		if w := c.post(draft("u-1"), "k"); w.Code != http.StatusConflict {
			t.Errorf("meanwhile: %d %s, want 409", w.Code, w.Body)
		}
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		t.Fatal(err)
	}
	if w := c.post(draft("u-1"), "k"); w.Code != http.StatusAccepted {
		t.Errorf("after the rollback: %d %s", w.Code, w.Body)
	}
}

var errRollback = errors.New("roll back")

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first := c.post(draft("u-1"), "k")
	c.placer.keys.Now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if w := c.post(draft("u-1"), "k"); w.Code != http.StatusAccepted || w.Body.String() == first.Body.String() {
		t.Errorf("a day later: %d %s, want an order of its own", w.Code, w.Body)
	}
}
