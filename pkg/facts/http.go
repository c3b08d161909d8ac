package facts

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// TypeChanged is the type of the problem with a command that was decided by what is no longer so: 409. Look again, and
// decide again.
const TypeChanged = "changed-meanwhile"

// None is the status of what is not there, where a command says what its sender has seen.
const None = "NONE"

// Changed is the answer to a command whose sender has seen another status than there is.
func Changed(seen, is string) *huma.ErrorModel {
	return web.Problem(http.StatusConflict, TypeChanged, "Changed meanwhile", "it is "+is+" by now, and no longer "+seen, web.Field("body.seen", "expected "+is, seen))
}

// Output is the answer to a command: what is held then.
type Output struct{ Body Fact }

// Reply is the answer to a command that was carried out, or of which another status than was seen kept its service:
// changed, if it is not empty.
func Reply(f Fact, seen, changed string) (*Output, error) {
	if changed != "" {
		return nil, Changed(seen, changed)
	}
	return &Output{Body: f}, nil
}

const maxBuckets = 10_000 // of one digest

// Server answers questions about what a service holds.
type Server struct {
	DB      *pgxpool.Pool
	Broker  *broker.Client
	Service saga.Service // whose consumer groups are asked how far they are
	Source  Source
	Rules   []Rule
	Shown   []Shown // what read sides show of it, or it shows of others'; empty: nothing

	// Audit holds the database to its rules in place of [Audit] with Rules, where those would read too much; full:
	// everything is read now, whatever was audited before. nil: Rules are.
	Audit func(ctx context.Context, full bool) ([]Breach, error)

	Restored func(ctx context.Context, tx pgx.Tx) error // see [Identified]

	// Stopping ends when the service stops. What is asked then is not answered any more: who asks can ask again, and a
	// look at millions of rows must not hold up the stop. nil: never.
	Stopping context.Context
}

// flowTimeout bounds how long Kafka may take to say how far a group is.
const flowTimeout = 3 * time.Second

// untilStop is ctx, which also ends when the service stops.
func (s Server) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if s.Stopping == nil {
		return ctx, cancel
	}
	stop := context.AfterFunc(s.Stopping, cancel)
	return ctx, func() { stop(); cancel() }
}

// fault is the answer to an error: that of a service that stops passes.
func (s Server) fault(ctx context.Context, err error) error {
	if s.Stopping != nil && s.Stopping.Err() != nil {
		return web.Unavailable(err)
	}
	return web.Fault(ctx, err)
}

// The answers, as they are read at the other end.
type (
	// Digests is the answer to GET /facts/digest.
	Digests struct {
		Set     string   `json:"set" example:"confirmed"`
		Buckets []Bucket `json:"buckets" nullable:"false" doc:"by time; without those that are empty"`
	}
	// Facts is the answer to GET /facts and POST /facts/query.
	Facts struct {
		Facts []Fact    `json:"facts" nullable:"false" doc:"by id"`
		Next  uuid.UUID `json:"next,omitzero" doc:"from, of the next page; none after the last one"`
	}
	// Breaches is the answer to GET /facts/audit.
	Breaches struct {
		Breaches []Breach `json:"breaches" nullable:"false"`
	}
)

type (
	// SpanQuery is exported because huma passes over what it embeds otherwise.
	SpanQuery struct {
		From uuid.UUID `query:"from" pattern:"^[0-9A-Fa-f-]{36}$" patternDescription:"a UUID, such as 01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f" doc:"the first id; none: from the first one on"`
		To   uuid.UUID `query:"to" required:"true" doc:"the id before which to stop"`
	}
	digestInput struct {
		SpanQuery
		WidthMs int64 `query:"widthMs" required:"true" minimum:"1" maximum:"9223372036854" doc:"of a bucket, in milliseconds"`
	}
	listInput struct {
		SpanQuery
		Limit int `query:"limit" default:"1000" minimum:"1" maximum:"1000"`
	}
	auditInput struct {
		Full bool `query:"full" doc:"read everything now, also what was audited before; otherwise a service may audit what is new, and read the rest again in turns"`
	}
	queryInput struct {
		Body struct {
			IDs []anyID `json:"ids" minItems:"1" maxItems:"1000" nullable:"false"`
		}
	}
)

// anyID is an id that is looked for as it is: also the one of zeros, which nobody should have been given.
type anyID struct{ uuid.UUID }

// Schema implements [huma.SchemaProvider].
func (anyID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "uuid"}
}

func (q SpanQuery) span() Span { return Span(q) }

// Register adds the operations to an API, with those of [Identified].
func (s Server) Register(api huma.API) {
	Identified{DB: s.DB, Restored: s.Restored}.Register(api)
	huma.Register(api, huma.Operation{
		OperationID: "digest-facts", Method: http.MethodGet, Path: "/facts/digest", Summary: "Digest what is held, by spans of the ids' times",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.digest)
	huma.Register(api, huma.Operation{
		OperationID: "list-facts", Method: http.MethodGet, Path: "/facts", Summary: "List what is held, by id",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.list)
	huma.Register(api, huma.Operation{
		OperationID: "query-facts", Method: http.MethodPost, Path: "/facts/query", Summary: "List what is held of some ids",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.query)
	s.registerFlow(api)
	huma.Register(api, huma.Operation{
		OperationID: "audit", Method: http.MethodGet, Path: "/facts/audit", Summary: "Hold the database to what must always be true of it",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.audit)
	if len(s.Shown) > 0 {
		s.registerDocuments(api)
	}
}

func (s Server) registerFlow(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "read-flow", Method: http.MethodGet, Path: "/facts/flow", Summary: "Tell how far the service is with what it was told and has to tell",
		Errors: []int{http.StatusServiceUnavailable},
	}, s.flow)
}

func (s Server) digest(ctx context.Context, in *digestInput) (*struct{ Body Digests }, error) {
	ctx, cancel := s.untilStop(ctx)
	defer cancel()
	buckets, err := s.Source.Digest(ctx, s.DB, in.span(), time.Duration(in.WidthMs)*time.Millisecond)
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	if len(buckets) > maxBuckets {
		return nil, web.Invalid(web.Field("query.widthMs", fmt.Sprintf("expected a width at which no more than %d buckets have rows", maxBuckets), in.WidthMs))
	}
	return &struct{ Body Digests }{Digests{Set: s.Source.Set, Buckets: buckets}}, nil
}

func (s Server) list(ctx context.Context, in *listInput) (*struct{ Body Facts }, error) {
	facts, err := s.Source.List(ctx, s.DB, in.span(), in.Limit+1)
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	out := Facts{Facts: facts}
	if len(facts) > in.Limit {
		out.Facts, out.Next = facts[:in.Limit], facts[in.Limit].ID
	}
	return &struct{ Body Facts }{out}, nil
}

func (s Server) query(ctx context.Context, in *queryInput) (*struct{ Body Facts }, error) {
	ids := make([]uuid.UUID, len(in.Body.IDs))
	for i, id := range in.Body.IDs {
		ids[i] = id.UUID
	}
	facts, err := s.Source.Get(ctx, s.DB, ids...)
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	return &struct{ Body Facts }{Facts{Facts: facts}}, nil
}

func (s Server) flow(ctx context.Context, _ *struct{}) (*struct{ Body Flow }, error) {
	ctx, cancel := s.untilStop(ctx)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, flowTimeout)
	defer cancel()
	groups, err := s.Service.Groups()
	if err != nil {
		return nil, err
	}
	f, err := ReadFlow(ctx, s.DB, s.Broker, groups)
	if err != nil {
		return nil, web.Unavailable(err) // Kafka or the database is away
	}
	return &struct{ Body Flow }{f}, nil
}

// AuditWithin bounds an audit. A first or full one reads all that is stored: some ten seconds for a million orders.
const AuditWithin = 9 * time.Minute

func (s Server) audit(ctx context.Context, in *auditInput) (*struct{ Body Breaches }, error) {
	ctx, done := web.Outlast(ctx, AuditWithin)
	defer done()
	ctx, cancel := s.untilStop(ctx)
	defer cancel()
	var found []Breach
	var err error
	if s.Audit != nil {
		found, err = s.Audit(ctx, in.Full)
	} else {
		found, err = Audit(ctx, s.DB, s.Rules)
	}
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	if found == nil {
		found = []Breach{}
	}
	return &struct{ Body Breaches }{Breaches{found}}, nil
}
