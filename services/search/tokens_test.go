package search

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/event"
)

// first is the first thing that a query finds, or nothing.
func (b bundle) first(q string) string {
	b.Helper()
	status, found := b.get("q=" + url.QueryEscape(q))
	if status != http.StatusOK {
		b.Errorf("%q: %d %s", q, status, found)
	}
	found, _, _ = strings.Cut(found, ",")
	return found
}

// Whoever types a token with signs as it is written finds that, before all that is only like it.
func TestTokensWithSignsComeFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	exact := map[string]string{ // by the title
		"Kabel USB-3 lang": "USB-3", "Portrait of john.doe": "john.doe", "Adapter AC/DC 12 V": "AC/DC", "Learn Node.js now": "node.js",
		"Beans, 1.5 kg": "1.5", "Spray (WD-40), 200 ml": "wd-40", "The C++ book": "c++", "The C# book": "C#", "Shirt by H&M": "h&m",
		"O'Brien biscuits": "O’Brien", "Snake_case mug": "snake_case", "Deal: 50% off": "50%", "Postcard café-crème": "CAFÉ-CRÈME", "Web .NET guide": ".net",
	}
	var records []titled
	for i, title := range slices.Sorted(maps.Keys(exact)) {
		records = append(records, titled{fmt.Sprintf("p%d", i), title})
	}
	for i, like := range []string{
		"USB 3 lang", "3 USB", "usb hub 3.0", "john doe", "doe john", "AC DC", "DC AC 12 V", "JS node puzzle", "Node JS", "Set of 1 cup, 5 spoons", "15 of 1 kg",
		"WD 40", "40 WD", "WD-400", "C", "The C book", "H M", "Brien O biscuits", "case snake", "50 off", "crème café", "net", "1 5",
	} {
		records = append(records, titled{fmt.Sprintf("like%d", i), like})
	}
	for _, r := range records {
		b.deliver(product(t, r.id, 1, r.title, event.InStock))
	}
	for _, r := range records {
		q, ok := exact[r.title]
		if !ok {
			continue
		}
		for _, q := range []string{q, strings.ToUpper(q), strings.ToLower(q), " " + q + " "} {
			if got, want := b.first(q), "product "+r.id+" v1"; got != want {
				t.Errorf("%q finds %q first, want %q, %s", q, got, r.title, want)
			}
		}
	}
}

type titled struct{ id, title string }

// An id with signs is found in any case, and a title that is all of the query comes before one that only has it.
func TestTheWholeTitleOrIDComesFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(
		product(t, "sku-7", 1, "Teapot", event.InStock),
		product(t, "x", 1, "Sku case 7", event.InStock),
		product(t, "y", 1, "A box for sku-7", event.InStock),
		product(t, "z", 1, "Teapot, large", event.InStock),
		user(t, "fan", 1, "Fan", "Teapot"),
	)
	for q, want := range map[string]string{"SKU-7": "product sku-7 v1", "sku-7": "product sku-7 v1", "TEAPOT": "product sku-7 v1", "teapot, large": "product z v1"} {
		if got := b.first(q); got != want {
			t.Errorf("%q finds %q first, want %q", q, got, want)
		}
	}
}

// What is misspelt is found beside what is not, and after it.
func TestMisspeltBesideExact(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(product(t, "right", 1, "Grinder", event.InStock), product(t, "wrong", 1, "A grindr", event.InStock), product(t, "other", 1, "Mug", event.InStock))
	for q, want := range map[string]string{"grinder": "product right v1, product wrong v1", "grindr": "product wrong v1, product right v1"} {
		if status, got := b.get("q=" + q); status != http.StatusOK || got != want {
			t.Errorf("%s: %d %s, want %s", q, status, got, want)
		}
	}
}

// Whatever form a text is written in, and whatever the query is, they are the same to a search.
func TestOtherFormsAndCases(t *testing.T) {
	t.Parallel()
	b := setup(t)
	titles := []string{
		"Γιώργος", "Straße", "Kapı", "Łukasz", "Søren", "Ångström", "Đorđe", "Œuvre", "Ærø", "Лёва", "ＵＳＢ－Ｃ", "ﬁnish", "Việt", "ﾃﾚﾋﾞ", "한국어", "USB‑4", "co\u00adoperate",
	}
	forms := map[string]func(string) string{
		"as it is": func(s string) string { return s }, "upper": strings.ToUpper, "lower": strings.ToLower, "title": func(s string) string { return strings.ToTitle(s) },
		"NFC": norm.NFC.String, "NFD": norm.NFD.String, "NFKC": norm.NFKC.String, "NFKD": norm.NFKD.String,
	}
	n := 0
	for _, title := range titles {
		for _, stored := range slices.Sorted(maps.Keys(forms)) {
			b.deliver(user(t, "someone", int64(n+1), forms[stored](title), ""))
			n++
			for asked, form := range forms {
				if status, got := b.get("q=" + url.QueryEscape(form(title))); status != http.StatusOK || got != fmt.Sprintf("user someone v%d", n) {
					t.Errorf("%s, stored in the form %q, is not found by the form %q %q: %d %q", title, stored, asked, form(title), status, got)
				}
			}
		}
	}
	for q, title := range map[string]string{"lukasz": "Łukasz", "soren": "Søren", "STRASSE": "Straße", "oeuvre": "Œuvre", "ΓΙΩΡΓΟΣ": "Γιώργος", "γιωργοσ": "Γιώργος", "usb-c": "ＵＳＢ－Ｃ", "usb-4": "USB‑4", "kapi": "KAPI"} {
		n++
		b.deliver(user(t, "someone", int64(n), title, ""))
		if got, want := b.first(q), fmt.Sprintf("user someone v%d", n); got != want {
			t.Errorf("%q does not find %s: %q", q, title, got)
		}
	}
}

// The words that PostgreSQL makes of a document are those that a query is taken apart into, whatever signs and scripts
// meet.
func TestWordsAreSplitAlike(t *testing.T) {
	t.Parallel()
	b := setup(t)
	texts := rapid.SliceOfN(rapid.SampledFrom(strings.Split("a b x e 0 1 5 9 ab usb . - _ / : @ + # % & ' ' é ß Σ ς 米 ー т ・ ＡＢ - www. .com http:// ?q= < >", " ")), 1, 12)
	for i := range 100 {
		text := strings.Join(texts.Example(i), "")
		if i%2 == 1 {
			text += " " + strings.Join(texts.Example(i+1000), "")
		}
		doc, _ := Document{Title: text}.searched()
		folded := doc.folded
		var got []string
		if err := b.db.QueryRow(t.Context(), `SELECT ARRAY(SELECT w FROM unnest(tsvector_to_array(to_tsvector('simple', $1))) w WHERE w ~ '^[ -~]+$')`, folded).Scan(&got); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(parse(fold(text), false).words)
		slices.Sort(want)
		if diff := gocmp.Diff(slices.Compact(want), append([]string(nil), got...)); diff != "" {
			t.Errorf("%q, searched as %q (-query +document):\n%s", text, folded, diff)
		}
	}
}

func TestQueriesAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(product(t, "tea", 1, "Tea", event.InStock))
	for name, q := range map[string]string{
		"thousands of words": strings.Repeat("word ", 5000), "one long word": strings.Repeat("x", 201), "blank": "   ", "a blank that is no space": "\u00a0\u3000", "nothing to see": "\u200b\u00ad",
	} {
		if status, got := b.get("q=" + url.QueryEscape(q)); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, status, got)
		}
	}
	for name, q := range map[string]string{
		"many words": strings.Repeat("w ", 100), "different ones": strings.Join(strings.Split("abcdefghijklmnopqrstuvwxyz0123456789", ""), " "), "ligatures of eighteen letters": strings.Repeat("ﷺ", 200),
		"many tokens with signs": strings.Repeat("a-b ", 50), "many letters": strings.Repeat("米東", 100), "signs": strings.Repeat("-", 200), "accents": "e" + strings.Repeat("\u0301", 199),
	} {
		if status, got := b.get("q=" + url.QueryEscape(q)); status != http.StatusOK {
			t.Errorf("%s: %d %s", name, status, got)
		}
	}
}

// A text of any length is stored and found by its beginning.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i, long := range []string{strings.Repeat("ﷺ ", 80_000), strings.Repeat("x", 500_000), strings.Repeat("a-b.c ", 100_000), strings.Repeat("米", 100_000)} {
		id := fmt.Sprintf("long%d", i)
		b.deliver(user(t, id, 1, "Long"+fmt.Sprint(i), long))
		if got, want := b.first("long"+fmt.Sprint(i)), "user "+id+" v1"; got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
	var words []string
	for i := range 120_000 {
		words = append(words, fmt.Sprintf("w%d", i))
	}
	b.deliver(user(t, "words", 1, "Words", strings.Join(words, " ")))
	if got := b.first("words"); got != "user words v1" {
		t.Errorf("many words: %q", got)
	}
}

// However many documents fit, a query reads a bounded number of them, and the one that fits exactly is among those.
func TestManyMatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.db.Exec(t.Context(), `INSERT INTO documents (generation, kind, id, version, title, detail, folded, grams)
SELECT 1, 'product', 'p' || n, 1, 'x', '', 'usb 3 abc' || n || ' 米 cable', ARRAY['米'] FROM generate_series(1, 20000) n`); err != nil {
		t.Fatal(err)
	}
	b.deliver(product(t, "this", 1, "Kabel USB-3", event.InStock), product(t, "that", 1, "A", event.InStock), product(t, "rice", 1, "米", event.InStock))
	if _, err := b.db.Exec(t.Context(), `ANALYZE documents`); err != nil {
		t.Fatal(err)
	}
	for q, want := range map[string]string{"usb-3": "product this v1", "a": "product that v1", "米": "product rice v1"} {
		if got := b.first(q); got != want {
			t.Errorf("%q finds %q first, want %q", q, got, want)
		}
	}
	for _, q := range []string{"a", "u", "usb", "usb-3", "米", "cable 米", "abcx"} {
		if read := b.rowsRead(q); read > 5*candidates {
			t.Errorf("%q reads %d documents:\n%s", q, read, b.plan(q))
		}
	}
}

var (
	scanned = regexp.MustCompile(`Scan .*on documents(?: \w+)? .*rows=([\d.]+) loops=(\d+)`)
	removed = regexp.MustCompile(`Rows Removed by (?:Filter|Index Recheck): (\d+)()`)
)

// rowsRead is how many rows a query takes out of the table.
func (b bundle) rowsRead(q string) (n int) {
	b.Helper()
	plan := b.plan(q)
	for _, m := range append(scanned.FindAllStringSubmatch(plan, -1), removed.FindAllStringSubmatch(plan, -1)...) {
		rows, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			b.Fatal(err)
		}
		loops, _ := strconv.Atoi(cmp.Or(m[2], "1"))
		n += int(rows) * loops
	}
	if n == 0 {
		b.Errorf("no row is read:\n%s", plan)
	}
	return n
}

// What was written down before it was folded this far is found as it was, by the migration or by what is like it.
func TestDocumentsOfTheVersionBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for id, folded := range map[string]string{"giorgos": "γιωργος giorgos", "strasse": "straße", "lev": "łukasz", "usb": "kabel usb-3", "node": "node.js in practice"} {
		grams := append([]string{}, parse(folded, true).grams...)
		if _, err := b.db.Exec(t.Context(), `INSERT INTO documents (generation, kind, id, version, title, detail, folded, grams)
VALUES (1, 'user', $1, 1, $2, '', $2, $3)`, id, folded, grams); err != nil {
			t.Fatal(err)
		}
	}
	file, err := fs.ReadFile(migrations.For("search"), "00002_folding.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(file), "-- +goose Down")
	if _, err := b.db.Exec(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	for q, id := range map[string]string{"Γιώργος": "giorgos", "ΓΙΩΡΓΟΣ": "giorgos", "Straße": "strasse", "strasse": "strasse", "Łukasz": "lev", "lukasz": "lev", "usb-3": "usb", "usb": "usb", "node.js": "node", "kabel": "usb"} {
		if got, want := b.first(q), "user "+id+" v1"; got != want {
			t.Errorf("%q: %q, want %q", q, got, want)
		}
	}
}
