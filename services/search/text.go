package search

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// What is searched is bounded, whatever is sent.
const (
	longestText     = 32 << 10 // bytes of a document: a full text has at most a megabyte, and letters can become many when they are folded
	longestToken    = 128      // bytes of a token with signs, or of an entire title
	mostTokens      = 1000     // with signs, of a document
	longestMisspelt = 128      // bytes that are compared by trigrams
)

// text is a query or a document, taken apart. Both are taken apart alike.
type text struct {
	folded string   // all words and all runs of other letters, with one space between them
	words  []string // of ASCII letters and digits
	grams  []string // of other letters, alone and in pairs
	signed []string // tokens with signs, such as usb-3, node.js or c++
}

// letters that people take for others, though Unicode does not.
var alike = strings.NewReplacer("ı", "i", "ø", "o", "ł", "l", "đ", "d", "ħ", "h", "æ", "ae", "œ", "oe", "’", "'", "‘", "'", "ʼ", "'", "\u2212", "-")

// fold makes alike what people take for the same: case (also a final sigma), accents, full and half width, dashes,
// hiragana and katakana. What cannot be seen is left out, and every blank is one space, with none around the text.
func fold(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x300 && r <= 0x36f: // accents; not the marks that make a ga of a ka
			return -1
		case unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
			return -1
		case unicode.Is(unicode.Pd, r):
			return '-'
		}
		return r
	}, norm.NFKD.String(s))
	s = norm.NFC.String(alike.Replace(cases.Fold().String(s)))
	s = strings.Map(func(r rune) rune {
		if r >= 'ァ' && r <= 'ヶ' {
			return r - 'ァ' + 'ぁ'
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// class is what a letter is to a search.
type class int

const (
	sign   class = iota
	ascii        // a letter or a digit
	letter       // beyond ASCII: a letter, a digit or a mark
)

func classOf(r rune) class {
	switch {
	case !unicode.IsLetter(r) && !unicode.IsDigit(r) && (r < 0x80 || !unicode.IsMark(r)):
		return sign
	case r < 0x80:
		return ascii
	}
	return letter
}

// parse takes folded text apart. Words end where a sign or another script begins. Of letters beyond ASCII it takes each
// alone and each two neighbours; of a document also across a space or a middle dot, which Japanese names are written
// with and without.
func parse(plain string, document bool) text {
	t := text{signed: signedOf(plain)}
	var runs []string
	var run strings.Builder
	var last rune // the letter before, if it is one beyond ASCII
	kind := sign  // of the run
	end := func() {
		if run.Len() == 0 {
			return
		}
		runs = append(runs, run.String())
		if kind == ascii {
			t.words = append(t.words, run.String())
		}
		run.Reset()
	}
	for _, r := range plain {
		c := classOf(r)
		if c != kind {
			end()
			kind = c
		}
		switch {
		case c == letter:
			t.grams = append(t.grams, string(r))
			if last != 0 {
				t.grams = append(t.grams, string(last)+string(r))
			}
			last = r
		case c == ascii || !document || r != ' ' && r != '・' && r != '·':
			last = 0
		}
		if c != sign {
			run.WriteRune(r)
		}
	}
	end()
	t.folded = strings.Join(runs, " ")
	slices.Sort(t.grams)
	t.grams = slices.Compact(t.grams)
	return t
}

// signedOf lists the tokens of folded text that have signs in them, or before or behind them where they belong to them:
// .net, c++, 50%. It lists the parts of a list, too: usb-3/usb-c is one token, and two.
func signedOf(plain string) []string {
	var signed []string
	for field := range strings.FieldsSeq(plain) {
		for i, token := range append([]string{field}, strings.FieldsFunc(field, separates)...) {
			token = strings.TrimRightFunc(strings.TrimLeftFunc(token, opens), closes)
			if (i == 0 || token != field) && len(token) <= longestToken && hasSign(token) {
				signed = append(signed, token)
			}
		}
	}
	slices.Sort(signed)
	signed = slices.Compact(signed)
	return signed[:min(len(signed), mostTokens)]
}

func separates(r rune) bool { return strings.ContainsRune("/,;|()[]{}<>", r) }
func opens(r rune) bool     { return r < 0x80 && classOf(r) == sign && !strings.ContainsRune(".#$@", r) }
func closes(r rune) bool    { return r < 0x80 && classOf(r) == sign && !strings.ContainsRune("+#%$", r) }

// hasSign tells whether a token has a sign besides letters; a symbol beyond ASCII needs none.
func hasSign(token string) bool {
	signs, letters := false, false
	for _, r := range token {
		is := classOf(r) == sign
		signs = signs || is
		letters = letters || !is || unicode.IsSymbol(r) && r >= 0x80
	}
	return signs && letters
}

// entireOf is how texts are stored that somebody may type as a whole. No gram and no token begins with the sign that
// they begin with.
func entireOf(texts ...string) []string {
	var out []string
	for _, s := range texts {
		if s = fold(cut(s, longestText)); s != "" && len(s) <= longestToken {
			out = append(out, "="+s)
		}
	}
	if out == nil {
		return none
	}
	return out
}

// cut cuts a text after at most so many bytes, between two letters.
func cut(s string, bytes int) string {
	if len(s) <= bytes {
		return s
	}
	for bytes > 0 && !utf8.RuneStart(s[bytes]) {
		bytes--
	}
	return s[:bytes]
}
