package profile

import (
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// Choreography is profile's part: it reacts to nothing, and tells of each change.
func Choreography() saga.Service {
	return saga.Service{Name: "profile", Publishes: []saga.AnyTopic{event.UserProfileUpdated}}
}
