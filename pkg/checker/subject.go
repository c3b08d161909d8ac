package checker

import (
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// subject is what a finding is about.
func (f Finding) subject() string {
	if f.OrderID != uuid.Nil {
		return f.OrderID.String()
	}
	return f.Subject
}

// Place is what the finding is about, as text for a terminal that ParseSubject takes back: what cannot be printed, and
// a backslash, stand as they do in a JSON string, such as the tab before the currency of a user's further account in
// ada\tUSD.
func (f Finding) Place() string { return PrintSubject(f.subject()) }

// PrintSubject is a subject as Place prints it. No two subjects are printed the same.
func PrintSubject(subject string) string {
	quoted := strconv.Quote(subject)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`) // nothing begins or ends with a quote
}

// ParseSubject is the subject that was printed so. What was not printed by PrintSubject, such as a single backslash, is
// the subject itself.
func ParseSubject(printed string) string {
	subject, err := strconv.Unquote(`"` + strings.ReplaceAll(printed, `"`, `\"`) + `"`)
	if err != nil {
		return printed
	}
	return subject
}
