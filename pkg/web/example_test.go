package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/web"
)

// A body is checked against its type, and a complaint names the field and says what would be right.
func Example() {
	server := web.New(web.Config{Service: "till"})
	type input struct {
		Body struct {
			Amount int64 `json:"amount" minimum:"1" maximum:"1000"`
		}
	}
	huma.Register(server.API, huma.Operation{OperationID: "pay", Method: http.MethodPost, Path: "/payments"},
		func(context.Context, *input) (*struct{}, error) { return nil, nil })

	for _, body := range []string{`{"amount":700}`, `{"amount":-7}`, `{"amount":7,"amuont":8}`} {
		request := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/payments", strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		response := httptest.NewRecorder()
		server.ServeHTTP(response, request)
		var problem struct{ Detail string }
		_ = json.Unmarshal(response.Body.Bytes(), &problem) // a 204 has no body
		fmt.Println(strings.TrimSpace(fmt.Sprint(response.Code, " ", problem.Detail)))
	}
	// Output:
	// 204
	// 422 body.amount: expected a whole number from 1 to 1000
	// 422 body.amuont: unknown field, expected one of amount
}
