package checker

import "github.com/google/uuid"

// subject is what a finding is about.
func (f Finding) subject() string {
	if f.OrderID != uuid.Nil {
		return f.OrderID.String()
	}
	return f.Subject
}
