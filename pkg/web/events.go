package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// EventStream is the media type of server-sent events.
const EventStream = "text/event-stream"

// Event is one server-sent event. ID and Name must have no line breaks; Data is sent as JSON.
type Event struct {
	ID   string // what a client sends as Last-Event-ID when it comes again
	Name string
	Data any
}

// Events is an answer of server-sent events (HTML standard, 9.2) that has begun. It is for one goroutine.
type Events struct{ w http.ResponseWriter }

// NewEvents begins the answer, for an operation that returns a [huma.StreamResponse]. What lasts longer than
// Config.Timeout needs [Outlast] besides.
func NewEvents(hc huma.Context) (*Events, error) {
	_, w := humago.Unwrap(hc)
	header := w.Header()
	header.Set("Content-Type", EventStream)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx would collect events before it passes them on
	w.WriteHeader(http.StatusOK)
	e := &Events{w}
	return e, e.write(fmt.Sprintf("retry: %d\n\n", 1000)) // milliseconds until a client that was cut off comes again
}

// Send sends events. An error means that the client has gone, or has not taken them in time: the stream is over.
func (e *Events) Send(events ...Event) error {
	var text strings.Builder
	for _, event := range events {
		data, err := json.Marshal(event.Data)
		if err != nil {
			return fmt.Errorf("send event %s: %w", event.ID, err)
		}
		fmt.Fprintf(&text, "id: %s\nevent: %s\ndata: %s\n\n", event.ID, event.Name, data)
	}
	return e.write(text.String())
}

// Beat sends a comment, which clients leave out: so that nobody in between takes a quiet stream for a dead one, and
// that a client that has gone is noticed. The error is that of [Events.Send].
func (e *Events) Beat() error { return e.write(": still here\n\n") }

func (e *Events) write(text string) error {
	if x, ok := e.w.(*exchange); ok {
		x.extend(writeWithin)
	}
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return http.NewResponseController(e.w).Flush()
}
