package checker

import (
	"fmt"
	"slices"
	"time"

	"github.com/converge-dev/converge/pkg/facts"
)

// Subset finds members of a that are not members of b, such as shipments of orders that are not confirmed. Digests
// cannot tell a part of a set from another set: spans in which b has more are listed, so this costs the more the
// longer the two differ.
func Subset(kind Kind, a, b string) Rule {
	return between(kind, a, b, func(x, y facts.Bucket) bool { return x.Count > 0 && !sameMembers(x, y) }, func(h Held) string {
		return when(h.member(a) && !h.member(b), "it is in the set of %s, and not in that of %s", a, b)
	})
}

// Equal finds members of a or b that are not members of both.
func Equal(kind Kind, a, b string) Rule {
	return between(kind, a, b, func(x, y facts.Bucket) bool { return !sameMembers(x, y) }, func(h Held) string {
		in, out := a, b
		if h.member(b) {
			in, out = b, a
		}
		return when(h.member(a) != h.member(b), "it is in the set of %s, and not in that of %s", in, out)
	})
}

// SameAmount finds members of both a and b of which they hold another amount or currency. Who compares services whose
// [facts.Source] does not name Currency and User compares sums, in which two errors can cancel each other out.
func SameAmount(kind Kind, a, b string) Rule {
	return ofBoth(kind, a, b, func(x, y facts.Bucket) bool { return x.Amount != y.Amount || told(x.Money, y.Money) }, func(x, y *facts.Fact) string {
		return when(x.Amount != y.Amount || x.Currency != y.Currency, "%s holds %d %s, and %s %d %s", a, x.Amount, x.Currency, b, y.Amount, y.Currency)
	})
}

// SameUser finds members of both a and b of which they hold another user. A service that does not say who it is
// agrees with any.
func SameUser(kind Kind, a, b string) Rule {
	return ofBoth(kind, a, b, func(x, y facts.Bucket) bool { return told(x.Money, y.Money) }, func(x, y *facts.Fact) string {
		if x.UserID == nil || y.UserID == nil {
			return ""
		}
		return when(*x.UserID != *y.UserID, "%s holds it of %q, and %s of %q", a, *x.UserID, b, *y.UserID)
	})
}

// SameItems finds members of both a and b of which they hold other lines. A service that does not say which agrees
// with any.
func SameItems(kind Kind, a, b string) Rule {
	return ofBoth(kind, a, b, func(x, y facts.Bucket) bool { return told(x.Items, y.Items) }, func(x, y *facts.Fact) string {
		return when(told(x.Items, y.Items), "%s holds %s, and %s %s", a, x.Items, b, y.Items)
	})
}

// Settles finds things that a service has had in one of the statuses for too long. They are those that its
// [facts.Source] calls Open.
func Settles(kind Kind, service string, after time.Duration, statuses ...string) Rule {
	open := func(h Held) bool { f := h.Of(service); return f != nil && slices.Contains(statuses, f.Status) }
	return Rule{
		Kinds: []Kind{kind}, services: []string{service}, Differs: open,
		DiffersIn: func(b Buckets) bool { return b.Of(service).Open > 0 },
		Flaws: func(h Held, t Terms) []Flaw {
			f := h.Of(service)
			age := t.Now.Sub(f.ChangedAt)
			if age <= after {
				return nil
			}
			return []Flaw{{Kind: kind, Detail: fmt.Sprintf("%s holds it %s for %s: %s", service, f.Status, age.Round(time.Second), h)}}
		},
	}
}

// between is a rule of what two services hold; wrong says what is wrong with a thing, and nothing where nothing is.
func between(kind Kind, a, b string, differs func(x, y facts.Bucket) bool, wrong func(Held) string) Rule {
	return Rule{
		Kinds: []Kind{kind}, services: []string{a, b},
		DiffersIn: func(d Buckets) bool { return differs(d.Of(a), d.Of(b)) },
		Differs:   func(h Held) bool { return wrong(h) != "" },
		Flaws:     func(h Held, _ Terms) []Flaw { return []Flaw{{Kind: kind, Detail: wrong(h) + ": " + h.String()}} },
	}
}

// ofBoth is a rule of the members of both sets. Where the sets differ, their digests tell nothing of what both have.
func ofBoth(kind Kind, a, b string, differs func(x, y facts.Bucket) bool, wrong func(x, y *facts.Fact) string) Rule {
	return between(kind, a, b, func(x, y facts.Bucket) bool {
		return x.Count > 0 && y.Count > 0 && (!sameMembers(x, y) || differs(x, y))
	}, func(h Held) string {
		if !h.member(a) || !h.member(b) {
			return ""
		}
		return wrong(h.Of(a), h.Of(b))
	})
}

func sameMembers(x, y facts.Bucket) bool { return x.Count == y.Count && x.Hash == y.Hash }

// told tells whether two services say of the same what differs; one of an earlier version may not say it.
func told(x, y string) bool { return x != "" && y != "" && x != y }

// when is a text where it is so, and nothing where it is not.
func when(so bool, format string, args ...any) string {
	if !so {
		return ""
	}
	return fmt.Sprintf(format, args...)
}
