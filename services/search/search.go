// Package search finds users and products by what profile and inventory tell of them.
//
//   - search.go, text.go: the rules of documents and of words, without I/O
//   - routes.go: the events it reacts to
//   - store.go: every query; its schema is [migrations/search]
//   - http.go: the public API
//   - run.go: settings, and what runs
//
// [migrations/search]: https://github.com/converge-dev/converge/tree/main/migrations/search
package search

import (
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/event"
)

// Kind of a document.
type Kind string

// What can be found.
const (
	User    Kind = "user"
	Product Kind = "product"
)

// Document is something that can be found, in one version.
type Document struct {
	Kind     Kind    `json:"type" enum:"user,product"`
	ID       string  `json:"id" example:"ada"`
	Version  int64   `json:"version" example:"3"`
	Title    string  `json:"title" example:"Ada Lovelace"`
	Detail   string  `json:"detail,omitempty"`
	Price    *int64  `json:"price,omitempty" doc:"of a product, in minor units"`
	Currency *string `json:"currency,omitempty"`
	Stock    *string `json:"stock,omitempty" enum:"IN_STOCK,SOLD_OUT"`
}

func userDocument(e event.UserProfileUpdatedV1) Document {
	return Document{Kind: User, ID: e.UserID, Version: e.Version, Title: e.Name, Detail: e.Bio}
}

func productDocument(e event.ProductUpdatedV1) Document {
	stock := string(e.Stock)
	return Document{Kind: Product, ID: e.ProductID, Version: e.Version, Title: e.Name, Price: &e.Price, Currency: &e.Currency, Stock: &stock}
}

// newest keeps of each document the newest version, of equal ones the one that came last, in the order of kinds and
// ids. A version exists twice where an older copy of its database was restored: then the later one is what there is.
func newest(docs []Document) []Document {
	slices.Reverse(docs)
	slices.SortStableFunc(docs, func(a, b Document) int {
		if c := strings.Compare(string(a.Kind)+"/"+a.ID, string(b.Kind)+"/"+b.ID); c != 0 {
			return c
		}
		return int(min(1, max(-1, b.Version-a.Version)))
	})
	return slices.CompactFunc(docs, func(a, b Document) bool { return a.Kind == b.Kind && a.ID == b.ID })
}

// searched is what is searched of a document: the beginning of its title, id and detail, and as entire which of them
// somebody may type as a whole.
func (d Document) searched() (t text, entire []string) {
	all := d.Title + " " + d.ID + " " + d.Detail
	return parse(fold(cut(all, longestText)), true), entireOf(d.Title, d.ID)
}

// query is what is looked for.
type query struct {
	id       string   // as it was typed
	entire   []string // a title or an id
	signed   []string // tokens with signs, and the grams: all must be there; what no document has: none is looked for
	whole    string   // a tsquery: every word
	prefixes string   // a tsquery: every word, or its beginning
	grams    []string // all must be there; what no document has: none is looked for
	misspelt string   // compared by trigrams; empty: too short for that
	folded   string   // the sooner a document has it literally, the better it fits
}

// none is in no document.
var none = []string{""}

// parseQuery takes a query apart. ok is false where there is nothing to look for: spaces, and what cannot be seen.
func parseQuery(q string) (out query, ok bool) {
	plain := fold(q)
	t := parse(plain, false)
	out = query{
		id: strings.TrimSpace(q), entire: entireOf(q), signed: none, grams: none, folded: t.folded,
		whole: tsquery(t.words, ""), prefixes: tsquery(t.words, ":*"),
	}
	if len(t.grams) > 0 {
		// Of letters that have neighbours the pairs say more, and all that a single one does.
		out.grams = slices.DeleteFunc(slices.Clone(t.grams), func(g string) bool { return len([]rune(g)) < 2 })
		if len(out.grams) == 0 {
			out.grams = t.grams
		}
	}
	if len(t.signed) > 0 {
		out.signed = t.signed
		if len(t.grams) > 0 {
			out.signed = slices.Concat(t.signed, out.grams)
		}
	}
	// Two letters are like half of all words.
	if text := cut(strings.Join(t.words, " "), longestMisspelt); len(strings.ReplaceAll(text, " ", "")) > 2 && len(text) > len(t.words)*2-1 {
		out.misspelt = text
	}
	return out, plain != ""
}

// tsquery asks for all words, which are ASCII letters and digits.
func tsquery(words []string, suffix string) string {
	words = slices.Compact(slices.Sorted(slices.Values(words)))
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = "'" + w + "'" + suffix
	}
	return strings.Join(parts, " & ")
}
