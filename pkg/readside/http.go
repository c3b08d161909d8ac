package readside

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/web"
)

// The types of the problems of read sides.
const (
	typeRunning   = "rebuild-running"    // 409
	typeTrimmed   = "history-incomplete" // 409: the topics have lost their beginnings
	typeNotCaught = "version-not-there"  // 504: what the client has written has not come in time
)

// Lag is part of the output of every read.
type Lag struct {
	Ms string `header:"X-Consistency-Lag-Ms" doc:"everything that was in the topics so many milliseconds ago is in this answer; absent when that is not known, because Kafka cannot be asked"`
}

// NewLag is a lag for an answer that was read after [Freshness.Since] gave this moment.
func NewLag(since time.Time) Lag {
	if since.IsZero() {
		return Lag{}
	}
	return Lag{strconv.FormatInt(max(0, time.Since(since).Milliseconds()), 10)}
}

// Wanted is part of the input of a read that can wait for what the client has written.
type Wanted struct {
	MinVersion string `query:"minVersion" maxLength:"200" example:"user:ada:3" doc:"kind, id and version of something that the client has written: the answer comes when it is at least that new here"`
	WaitMs     int    `query:"waitMs" default:"2000" minimum:"0" maximum:"10000" doc:"how long to wait for minVersion before a 504"`
}

// Reached tells whether something is here in this version or a later one.
type Reached func(ctx context.Context, id string, version int64) (bool, error)

// Await waits until what the client wants is here: kinds say, for each kind of thing, how to look. The error is one for
// the client.
func (w Wanted) Await(ctx context.Context, kinds map[string]Reached) error {
	if w.MinVersion == "" {
		return nil
	}
	kind, rest, _ := strings.Cut(w.MinVersion, ":")
	cut := strings.LastIndexByte(rest, ':')
	version, err := strconv.ParseInt(rest[cut+1:], 10, 64)
	reached := kinds[kind]
	if reached == nil || cut < 1 || err != nil || version < 1 {
		return web.Invalid(web.Field("query.minVersion", "expected KIND:ID:VERSION, such as user:ada:3, of a kind that is told of here", w.MinVersion))
	}
	within, cancel := context.WithTimeout(ctx, time.Duration(w.WaitMs)*time.Millisecond)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		ok, err := reached(ctx, rest[:cut], version)
		if err != nil {
			return web.Fault(ctx, err)
		}
		if ok {
			return nil
		}
		select {
		case <-within.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return web.Problem(http.StatusGatewayTimeout, typeNotCaught, "Not there yet",
				fmt.Sprintf("%s has not come here within %d ms; it will, unless it was never written", w.MinVersion, w.WaitMs))
		case <-time.After(pause):
		}
	}
}

type (
	startInput struct {
		Partial bool `query:"partial" doc:"rebuild although the topics no longer hold all there was: what is gone there will be missing here"`
	}
	findInput struct {
		ID int64 `path:"id" minimum:"1" example:"2"`
	}
	startOutput struct {
		Location string `header:"Location" doc:"where its progress is shown"`
		Body     Generation
	}
	findOutput struct{ Body Generation }
)

// Register adds the operations that rebuild a side.
func (r *Rebuilder) Register(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "start-rebuild", Method: http.MethodPost, Path: "/rebuilds", DefaultStatus: http.StatusAccepted,
		Summary: "Build everything anew from the topics",
		Description: "Goes on behind the answer. What is there serves until the new generation has everything; then that does, from one moment to " +
			"the next. A rebuild that fails, or whose process dies, changes nothing.",
		Errors: []int{http.StatusConflict, http.StatusServiceUnavailable},
	}, r.start)
	huma.Register(api, huma.Operation{
		OperationID: "get-rebuild", Method: http.MethodGet, Path: "/rebuilds/{id}", Summary: "Show how a rebuild goes",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, r.show)
}

func (r *Rebuilder) start(ctx context.Context, in *startInput) (*startOutput, error) {
	g, err := r.Start(ctx, in.Partial)
	trimmed, isTrimmed := errors.AsType[*TrimmedError](err)
	switch {
	case isTrimmed:
		return nil, web.Problem(http.StatusConflict, typeTrimmed, "History incomplete", trimmed.Error()+"; with ?partial=true it is built from the rest")
	case errors.Is(err, ErrRunning):
		return nil, web.Problem(http.StatusConflict, typeRunning, "Rebuild under way", "a rebuild is under way; wait for its end")
	case err != nil:
		return nil, web.Fault(ctx, err)
	}
	return &startOutput{Location: fmt.Sprintf("/rebuilds/%d", g.ID), Body: g}, nil
}

func (r *Rebuilder) show(ctx context.Context, in *findInput) (*findOutput, error) {
	g, ok, err := r.Find(ctx, in.ID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, web.NotFound("there is no generation %d", in.ID)
	}
	return &findOutput{Body: g}, nil
}
