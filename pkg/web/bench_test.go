package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/converge-dev/converge/pkg/web"
)

// What a request costs in the HTTP layer, without network or database: by hand on net/http, on huma as it comes, and on
// this package. Run with
//
//	go test -run '^$' -bench . -benchmem ./web
func BenchmarkPostByHand(b *testing.B) { benchmarkPost(b, byHand()) }

func BenchmarkPostHuma(b *testing.B) {
	mux := http.NewServeMux()
	registerBench(humago.New(mux, huma.DefaultConfig("order", "dev")))
	benchmarkPost(b, mux)
}

func BenchmarkPostWeb(b *testing.B) {
	s := web.New(web.Config{Service: "order"})
	registerBench(s.API)
	benchmarkPost(b, s)
}

func benchmarkPost(b *testing.B, h http.Handler) {
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/orders", strings.NewReader(goodBody))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusAccepted {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

// BenchmarkNothing is what the benchmarks above spend on making a request and a recorder.
func BenchmarkNothing(b *testing.B) {
	benchmarkPost(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
}

type benchOrder struct {
	UserID   string `json:"userId" minLength:"1" maxLength:"64"`
	Items    []item `json:"items" minItems:"1" maxItems:"100"`
	Amount   int64  `json:"amount" minimum:"1"`
	Currency string `json:"currency" pattern:"^[A-Z]{3}$"`
}

type benchOutput struct {
	Location string `header:"Location"`
	Body     benchOrder
}

func registerBench(api huma.API) {
	huma.Register(api, huma.Operation{OperationID: "create", Method: "POST", Path: "/orders", DefaultStatus: http.StatusAccepted},
		func(_ context.Context, in *struct{ Body benchOrder }) (*benchOutput, error) {
			return &benchOutput{Location: "/orders/1", Body: in.Body}, nil
		})
}

var benchCurrency = regexp.MustCompile(`^[A-Z]{3}$`)

func byHand() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var in benchOrder
		dec := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
		dec.DisallowUnknownFields()
		err := dec.Decode(&in)
		if err == nil {
			err = in.check()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", "/orders/1")
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(in)
	})
	return mux
}

func (o benchOrder) check() error {
	if len(o.UserID) < 1 || len(o.UserID) > 64 || len(o.Items) < 1 || len(o.Items) > 100 || o.Amount < 1 || !benchCurrency.MatchString(o.Currency) {
		return errors.New("invalid order")
	}
	for _, one := range o.Items {
		if len(one.ProductID) < 1 || len(one.ProductID) > 64 || one.Quantity < 1 || one.Quantity > 1000 {
			return errors.New("invalid item")
		}
	}
	return nil
}
