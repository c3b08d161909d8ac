package event

import "github.com/converge-dev/converge/pkg/saga"

// UserProfileUpdated is what profile produces.
var UserProfileUpdated = saga.NewTopic[UserProfileUpdatedV1]("user.profile.updated")

// UserProfileUpdatedV1: the user's profile is so from this version on. Its key is the user's id. Versions of a user
// count from 1 without a gap.
type UserProfileUpdatedV1 struct {
	UserID  string `json:"userId"`
	Version int64  `json:"version"`
	Name    string `json:"name"`
	Email   string `json:"email"` // empty: none
	Bio     string `json:"bio"`   // empty: none
}

// Validate tells what is missing.
func (e UserProfileUpdatedV1) Validate() error {
	var r require
	r.text("userId", e.UserID)
	r.that(e.Version > 0, "version", "is missing or not positive")
	r.text("name", e.Name)
	return r.err()
}
