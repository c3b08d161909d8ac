// Package profile is the service that owns what users say of themselves. Others learn of it by user.profile.updated,
// and eventually: nothing here is needed to decide about money or stock.
//
//   - profile.go: the rules, without I/O
//   - routes.go: the event that it emits
//   - store.go: every query; its schema is [migrations/profile]
//   - http.go: the public API; retell.go: the operator's command
//   - run.go: settings, and what runs
//
// [migrations/profile]: https://github.com/converge-dev/converge/tree/main/migrations/profile
package profile

import (
	"strconv"
	"time"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/web"
)

// Draft is what a profile is set to.
type Draft struct {
	Name  string `json:"name" minLength:"1" maxLength:"200" pattern:"[^\\s\\x00-\\x1f\\x7f-\\x9f]" patternDescription:"text of 1 to 200 characters, not only blanks" example:"Ada Lovelace"`
	Email string `json:"email,omitempty" maxLength:"254" pattern:"^[^@\\s\\x00-\\x1f\\x7f]+@[^@\\s\\x00-\\x1f\\x7f]+$|^$" patternDescription:"an e-mail address, or nothing" example:"ada@example.com"`
	Bio   string `json:"bio,omitempty" maxLength:"2000" example:"Writes programs for machines that are not built yet."`
}

// Profile is a user's profile as it is.
type Profile struct {
	UserID string `json:"userId" example:"ada"`
	Draft
	Version   int64     `json:"version" doc:"counts the changes, from 1; the ETag has it, too" example:"1"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// etag is the version as HTTP has it.
func (p Profile) etag() string { return strconv.Quote(strconv.FormatInt(p.Version, 10)) }

func (p Profile) updated() event.UserProfileUpdatedV1 {
	return event.UserProfileUpdatedV1{UserID: p.UserID, Version: p.Version, Name: p.Name, Email: p.Email, Bio: p.Bio}
}

// verdict is what becomes of a write.
type verdict int

const (
	write    verdict = iota
	keep             // it has been done: this is the same request once more
	conflict         // the profile is not what the writer takes it for
	blind            // the writer does not say what it replaces
)

// judge decides about a write. Who creates needs no condition; who changes must say what, or would undo unseen what
// another has written. A change whose answer was lost may be sent again: it finds its own version, one above the one
// that it names.
func judge(now Profile, exists bool, d Draft, c web.Condition) verdict {
	before := Profile{Version: now.Version - 1}
	switch {
	case !exists && !c.Named:
		return write
	case !exists:
		return conflict
	case now.Draft == d && now.Version == 1 && !c.Named && (c.Except.Any || !c.Except.MatchWeak(now.etag())):
		return keep
	case c.Except.MatchWeak(now.etag()):
		return conflict
	case !c.Named:
		return blind
	case c.Match.Match(now.etag()):
		return write
	case c.Match.Match(before.etag()) && now.Draft == d:
		return keep
	}
	return conflict
}
