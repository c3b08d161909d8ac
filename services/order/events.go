package order

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/web"
)

func (h *handlers) registerEvents(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "stream-order", Method: http.MethodGet, Path: "/orders/{id}/events", Summary: "Follow an order until it has settled",
		Description: "Streams the order's history as server-sent events named history: the id is the number of its line, from 1, and the data the line, " +
			"as in the order. Ends when the order is CONFIRMED or CANCELLED, and also when the service stops or after 15 minutes: come again then with Last-Event-ID, as an EventSource does by itself. " +
			"An id that is none of the stream's begins at the first line.",
		Responses: map[string]*huma.Response{
			"200": {Description: "The history, as far as the client has not got it", Content: map[string]*huma.MediaType{web.EventStream: {}}},
			"204": {Description: "The order has settled and the client has got all of its history: there is no need to come again"},
		},
		Errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.events)
}

type eventsInput struct {
	ID   uuid.UUID `path:"id"`
	Last string    `header:"Last-Event-ID" example:"2" doc:"the last event that the client has got"`
}

// after is how many lines of a history the client has got.
func (in *eventsInput) after(history []Entry) int {
	n, err := strconv.Atoi(in.Last)
	if err != nil || n < 0 || n > len(history) { // of a database that was set back, perhaps
		return 0
	}
	return n
}

func (h *handlers) events(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	w, full := h.waits.join(in.ID) // before the order is read, so that no change is missed
	o, ok, err := get(ctx, h.db, in.ID)
	switch {
	case err != nil:
		err = web.Fault(ctx, err)
	case !ok:
		err = web.NotFound("there is no order %s", in.ID)
	case full != nil && o.SettledAt == nil:
		err = tooManyWait()
	}
	if err != nil {
		w.leave()
		return nil, err
	}
	if w != nil {
		w.notify(o.Progress)
	}
	sent := in.after(o.History)
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer w.leave()
		if o.SettledAt != nil && sent == len(o.History) {
			hc.SetStatus(http.StatusNoContent)
			return
		}
		if hc.Method() == http.MethodHead {
			hc.SetHeader("Content-Type", web.EventStream)
			hc.SetStatus(http.StatusOK)
			return
		}
		stream(hc, w, o.Progress, sent)
	}}, nil
}

// stream sends the lines of an order's history that follow the first ones, and those that are added, until the order
// has settled.
func stream(hc huma.Context, w *waiter, p Progress, sent int) {
	ctx, cancel := web.Outlast(hc.Context(), streamFor)
	defer cancel()
	events, err := web.NewEvents(hc)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for err == nil {
		var lines []web.Event
		for ; sent < len(p.History); sent++ {
			lines = append(lines, web.Event{ID: strconv.Itoa(sent + 1), Name: "history", Data: p.History[sent]})
		}
		if len(lines) > 0 {
			err = events.Send(lines...)
		}
		if err != nil || p.SettledAt != nil {
			return
		}
		select {
		case <-w.changed:
			p = w.state()
		case <-beat.C:
			err = events.Beat()
		case <-w.all.stopped:
			return
		case <-ctx.Done():
			_ = events.Beat() // the end of the answer has its time then
			return
		}
	}
}
