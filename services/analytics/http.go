package analytics

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/web"
)

const (
	usualWindow   = 24 * time.Hour
	longestWindow = 31 * 24 * time.Hour
)

type (
	windowInput struct {
		From time.Time `query:"from" example:"2026-11-23T00:00:00Z" doc:"begin; 24 hours before the end where it is missing"`
		To   time.Time `query:"to" example:"2026-11-24T00:00:00Z" doc:"end, which does not belong to it; now where it is missing. At most 31 days after the begin"`
		readside.Wanted
	}
	reportOutput[T any] struct {
		readside.Lag
		Body struct {
			From time.Time `json:"from"`
			To   time.Time `json:"to"`
			Rows []T       `json:"rows" nullable:"false"`
		}
	}
)

// handlers answer the API's requests.
type handlers struct {
	db    *pgxpool.Pool
	fresh *readside.Freshness
}

// register adds analytics' operations to an API.
func register(api huma.API, db *pgxpool.Pool, fresh *readside.Freshness) {
	h := handlers{db, fresh}
	add[Hour](api, h, "orders", "Orders by the hour they were placed in, and their state", ordersSQL)
	add[Revenue](api, h, "revenue", "What confirmed orders brought in, by hour and currency", revenueSQL)
	add(api, h, "refusals", "Why orders were refused, the most frequent reason first", refusalsSQL, refusals)
	add[Durations](api, h, "durations", "How long orders took until they were confirmed, or cancelled without that", durationsSQL)
	add[Times](api, h, "cancellations", "How long after they were confirmed orders were cancelled, those that were", cancellationsSQL)
	add[Updates](api, h, "profile-updates", "Changes of profiles by hour", updatesSQL)
}

// add adds a report of rows of T, as sql finds them and each of the functions makes others of them.
func add[T any](api huma.API, h handlers, name, summary, sql string, sums ...func([]T) []T) {
	huma.Register(api, huma.Operation{
		OperationID: name, Method: http.MethodGet, Path: "/analytics/" + name, Summary: summary,
		Errors: []int{http.StatusGatewayTimeout, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *windowInput) (*reportOutput[T], error) {
		if err := in.Await(ctx, map[string]readside.Reached{"user": h.reached}); err != nil {
			return nil, err
		}
		from, to, err := in.window(clock.Now())
		if err != nil {
			return nil, err
		}
		since := h.fresh.Since(ctx)
		rows, err := report[T](ctx, h.db, sql, from, to)
		if err != nil {
			return nil, web.Fault(ctx, err)
		}
		for _, sum := range sums {
			rows = sum(rows)
		}
		out := &reportOutput[T]{Lag: readside.NewLag(since)}
		out.Body.From, out.Body.To, out.Body.Rows = from, to, rows
		return out, nil
	})
}

// window is what a report covers. Where no end is given it ends behind what is told of by now, also by clocks that are
// ahead.
func (in windowInput) window(now time.Time) (from, to time.Time, err error) {
	from, to = in.From, in.To
	if to.IsZero() {
		to = now.Add(time.Minute)
	}
	if from.IsZero() {
		from = to.Add(-usualWindow)
	}
	if d := to.Sub(from); d <= 0 || d > longestWindow {
		return from, to, web.Invalid(web.Field("query.from", fmt.Sprintf("expected a time before the end, by at most %d days", longestWindow/(24*time.Hour)), from))
	}
	return from.UTC(), to.UTC(), nil
}
