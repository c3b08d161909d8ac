package search

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is the service on a database of its own, without Kafka.
type bundle struct {
	*testing.T
	db  *pgxpool.Pool
	api http.Handler
}

func setup(t *testing.T) bundle {
	t.Helper()
	db := pgtest.New(t, "search", sagatest.Migrate(readside.Migration(), pg.Migration{Name: "search", FS: migrations.For("search")}))
	server := web.New(web.Config{Service: "search"})
	nowhere, err := broker.Open(broker.Config{Brokers: []string{pgtest.FreeAddr(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nowhere.Close)
	register(server.API, db, readside.NewFreshness(Side(), nowhere))
	return bundle{t, db, server}
}

func (b bundle) deliver(records ...broker.Record) {
	b.Helper()
	for _, r := range sagatest.Deliver(b.T, b.db, Choreography(), records...) {
		b.Errorf("it says %s: %s", r.Topic, r.Header("dlq-reason"))
	}
}

func user(t *testing.T, id string, version int64, name, bio string) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), event.UserProfileUpdated, id, event.UserProfileUpdatedV1{UserID: id, Version: version, Name: name, Bio: bio}))
}

func product(t *testing.T, id string, version int64, name string, stock event.Stock) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), event.ProductUpdated, id,
		event.ProductUpdatedV1{ProductID: id, Version: version, Name: name, Price: 1250, Currency: "EUR", Stock: stock}))
}

// get answers with the status and what was found, as "kind id vN", or a problem's type.
func (b bundle) get(query string) (int, string) {
	b.Helper()
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), "GET", "/search?"+query, nil))
	var got struct {
		Results []Document
		Type    string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		b.Fatalf("%s: %d %q: %v", query, w.Code, w.Body, err)
	}
	if w.Code != http.StatusOK {
		return w.Code, strings.TrimPrefix(got.Type, web.TypePrefix)
	}
	var found []string
	for _, d := range got.Results {
		found = append(found, fmt.Sprintf("%s %s v%d", d.Kind, d.ID, d.Version))
	}
	return w.Code, strings.Join(found, ", ")
}

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t).db)
}

func TestFind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(
		user(t, "ada", 1, "Ada Lovelace", "Writes programs for engines."),
		user(t, "grace", 1, "Grace Hopper", "Found a moth."),
		user(t, "taro", 1, "山田 太郎", "東京でコーヒーを飲む"),
		user(t, "hanako", 1, "ヤマダ花子", ""),
		user(t, "zoe", 1, "Zoë Müller", ""),
		user(t, "lev", 1, "Лев Толстой", ""),
		product(t, "coffee-beans", 1, "Coffee beans, 1 kg", event.InStock),
		product(t, "grinder", 1, "Hand grinder, last ones", event.SoldOut),
		product(t, "mug", 1, "コーヒーカップ", event.InStock),
		product(t, "rice", 1, "米", event.InStock),
	)
	for _, tt := range []struct{ name, q, more, want string }{
		{"a word", "lovelace", "", "user ada v1"},
		{"its beginning", "lov", "", "user ada v1"},
		{"beginnings in any order", "hop gra", "", "user grace v1"},
		{"case", "GRINDER", "", "product grinder v1"},
		{"a letter missing", "grindr", "", "product grinder v1"},
		{"letters swapped", "girnder", "", "product grinder v1"},
		{"misspelt, two words", "cofee beens", "", "product coffee-beans v1"},
		{"in the text", "moth", "", "user grace v1"},
		{"an id comes first", "ada", "", "user ada v1"},
		{"accents", "zoe muller", "", "user zoe v1"},
		{"accents in the query", "Žöé", "", "user zoe v1"},
		{"Japanese, two letters", "山田", "", "user taro v1"},
		{"Japanese, without the space", "山田太郎", "", "user taro v1"},
		{"Japanese, with a space", "太郎 山田", "", "user taro v1"},
		{"Japanese, one letter", "米", "", "product rice v1"},
		{"Japanese, in the middle", "ーヒ", "&type=product", "product mug v1"},
		{"Japanese, where it is", "コーヒー", "", "product mug v1, user taro v1"},
		{"hiragana for katakana", "やまだ", "", "user hanako v1"},
		{"half width", "ﾔﾏﾀﾞ", "", "user hanako v1"},
		{"the letters in another order", "田山", "", ""},
		{"another alphabet", "толст", "", "user lev v1"},
		{"only products", "ada", "&type=product", ""},
		{"limit", "コーヒー", "&limit=1", "product mug v1"},
		{"nothing of the kind", "xylophone", "", ""},
		{"tsquery syntax", "ada & ! (grace:*", "", "user ada v1, user grace v1"},
		{"quotes", `'); DROP TABLE documents; --`, "", ""},
		{"only signs", "%_&|!", "", ""},
	} {
		if status, got := b.get("q=" + url.QueryEscape(tt.q) + tt.more); status != http.StatusOK || got != tt.want {
			t.Errorf("%s: %q finds %d %s; want %s", tt.name, tt.q, status, got, tt.want)
		}
	}
	for _, bad := range []string{"", "q=", "q=a&type=order", "q=a&limit=0", "q=a&offset=1", "q=a&minVersion=ada", "q=a&minVersion=order:1:1", "q=a&minVersion=user:ada:0"} {
		if status, got := b.get(bad); status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d %s", bad, status, got)
		}
	}
}

// What comes late, twice or out of order leaves what is newest, in one poll or in many.
func TestNothingGoesBack(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	b := setup(t)
	var records []broker.Record
	for id := range 5 {
		for v := range 6 {
			records = append(records, user(t, fmt.Sprintf("u%d", id), int64(v+1), fmt.Sprintf("Name%d%c", id, 'a'+v), ""))
		}
	}
	records = append(records, records[:10]...)
	rnd.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	for len(records) > 0 {
		n := 1 + rnd.IntN(min(len(records), 8))
		b.deliver(records[:n]...)
		records = records[n:]
	}
	want := map[string]string{}
	for id := range 5 {
		want[fmt.Sprintf("name%df", id)] = fmt.Sprintf("user u%d v6", id)
		want[fmt.Sprintf("name%da", id)] = "" // of the old name nothing is found but what is similar
	}
	got := map[string]string{}
	for q := range want {
		_, found := b.get("q=" + q)
		got[q], _, _ = strings.Cut(found, ",")
		if want[q] == "" {
			got[q] = "" // checked below
			var left int
			if err := b.db.QueryRow(t.Context(), `SELECT count(*) FROM documents WHERE words @@ to_tsquery('simple', $1)`, q).Scan(&left); err != nil || left > 0 {
				t.Errorf("%s: %d documents, %v", q, left, err)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A client that has written waits for it, and gets it or is told that it has not come.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(user(t, "a:b", 1, "Ada", ""))
	if status, got := b.get("q=ada&minVersion=user:a:b:2&waitMs=20"); status != http.StatusGatewayTimeout || got != "version-not-there" {
		t.Errorf("what has not come: %d %s", status, got)
	}
	answer := make(chan string)
	go func() {
		status, got := b.get("q=ada&minVersion=user:a:b:2&waitMs=10000")
		answer <- fmt.Sprint(status, " ", got)
	}()
	select {
	case got := <-answer:
		t.Fatalf("before it comes: %s", got)
	case <-time.After(30 * time.Millisecond):
	}
	b.deliver(user(t, "a:b", 3, "Ada", ""))
	if got := <-answer; got != "200 user a:b v3" {
		t.Errorf("when it has come: %s", got)
	}
}

// At a size where it matters, every way to find something goes by an index.
func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.db.Exec(t.Context(), `INSERT INTO documents (generation, kind, id, version, title, detail, folded, grams)
SELECT 1, 'user', 'u' || n, 1, md5(n::text), '', md5(n::text), ARRAY[chr(19968 + n % 5000), chr(19968 + n % 5000) || chr(19968 + n % 4999)]
FROM generate_series(1, 20000) n`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.db.Exec(t.Context(), `ANALYZE documents`); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"c4ca4238a0b923820dcc509a6f75849b", "c4ca4238", "c4ca4238a0b923820dc5c09a6f75849b", "七丈"} {
		all := b.plan(text)
		if strings.Contains(all, "Seq Scan on documents") || regexp.MustCompile(`Rows Removed by (Filter|Index Recheck): \d{4}`).MatchString(all) {
			t.Errorf("%s reads everything:\n%s", text, all)
		}
	}
}

// plan tells how PostgreSQL finds what fits a query.
func (b bundle) plan(text string) string {
	b.Helper()
	q, _ := parseQuery(text)
	rows, _ := b.db.Query(b.Context(), `EXPLAIN (ANALYZE, COSTS OFF) `+findSQL, q.args([]Kind{User, Product}, 20)...)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
