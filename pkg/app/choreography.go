package app

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/saga"
)

// ChoreographyPath is where every service tells its part in the choreography.
const ChoreographyPath = "/choreography.json"

// registerChoreography adds the operation that answers with the service's declaration.
func registerChoreography(api huma.API, svc saga.Service) {
	type output struct{ Body saga.Declaration }
	declaration := svc.Declaration()
	huma.Register(api, huma.Operation{
		OperationID: "get-choreography", Method: http.MethodGet, Path: ChoreographyPath, Summary: "Show the service's part in the choreography",
		Description: "What it reacts to, in which consumer group, what it may emit, and where its dead letters lie. converge graph draws the whole from it.",
		Errors:      []int{http.StatusServiceUnavailable},
	}, func(context.Context, *struct{}) (*output, error) { return &output{declaration}, nil })
}
