// Package search finds users and products by what profile and inventory tell of them.
//
// Here are the rules, without I/O; routes.go says what the service reacts to, store.go holds the SQL, http.go the API.
package search

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

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

// newest keeps of each document the newest version, in the order of kinds and ids.
func newest(docs []Document) []Document {
	slices.SortStableFunc(docs, func(a, b Document) int {
		if c := strings.Compare(string(a.Kind)+"/"+a.ID, string(b.Kind)+"/"+b.ID); c != 0 {
			return c
		}
		return int(min(1, max(-1, b.Version-a.Version)))
	})
	return slices.CompactFunc(docs, func(a, b Document) bool { return a.Kind == b.Kind && a.ID == b.ID })
}

// folded is what is searched of a document.
func (d Document) folded() string {
	return strings.Join(strings.Fields(fold(d.Title+" "+d.ID+" "+d.Detail)), " ")
}

// fold makes alike what people take for the same: case, accents, full and half width, hiragana and katakana.
func fold(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x300 && r <= 0x36f: // accents; not the marks that make a ga of a ka
			return -1
		case r >= 'ァ' && r <= 'ヶ':
			return r - 'ァ' + 'ぁ'
		}
		return unicode.ToLower(r)
	}, norm.NFKD.String(s))
	return strings.Map(func(r rune) rune { // NFKD has taken ガ apart, too
		if r >= 'ァ' && r <= 'ヶ' {
			return r - 'ァ' + 'ぁ'
		}
		return r
	}, norm.NFC.String(s))
}

// text is a query or a document, taken apart.
type text struct {
	words []string // of ASCII letters and digits
	grams []string // of other letters
}

// parse takes folded text apart. Of letters beyond ASCII it takes each alone and each two neighbours; of a document also across a
// space or a middle dot, which Japanese names are written with and without.
func parse(folded string, document bool) text {
	var t text
	var word strings.Builder
	var last rune // the letter before, if it is one beyond ASCII
	end := func() {
		if word.Len() > 0 {
			t.words = append(t.words, word.String())
			word.Reset()
		}
	}
	for _, r := range folded {
		switch {
		case r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			word.WriteRune(r)
			last = 0
			continue
		case r >= 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)):
			t.grams = append(t.grams, string(r))
			if last != 0 {
				t.grams = append(t.grams, string(last)+string(r))
			}
			last = r
		case !document || r != ' ' && r != '・' && r != '·':
			last = 0
		}
		end()
	}
	end()
	slices.Sort(t.grams)
	t.grams = slices.Compact(t.grams)
	return t
}

// query is what is looked for.
type query struct {
	prefixes string   // a tsquery: every word, or its beginning
	misspelt string   // compared by trigrams
	grams    []string // all must be there; what no document has: none is looked for
	folded   string   // the sooner a document has it literally, the better it fits
	id       string
}

func parseQuery(q string) query {
	folded := fold(q)
	t := parse(folded, false)
	var parts []string
	for _, w := range t.words {
		parts = append(parts, w+":*")
	}
	out := query{prefixes: strings.Join(parts, " & "), misspelt: strings.Join(t.words, " "), id: strings.TrimSpace(q), folded: strings.Join(strings.Fields(folded), " "), grams: []string{""}}
	// Of letters that have neighbours the pairs say more, and all that a single one does.
	if pairs := slices.DeleteFunc(slices.Clone(t.grams), func(g string) bool { return len([]rune(g)) < 2 }); len(pairs) > 0 {
		out.grams = pairs
	} else if len(t.grams) > 0 {
		out.grams = t.grams
	}
	return out
}
