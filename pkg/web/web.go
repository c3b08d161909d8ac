// Package web is the HTTP side of a service: typed operations with an OpenAPI 3.1 description (huma, on net/http's
// mux), every error as application/problem+json, health, readiness, metrics by route, and a stop that loses no request.
//
// Operations are registered on [Server.API]. A request body is checked against the operation's schema before the
// handler sees it, more strictly than huma does by itself: unknown, repeated and differently spelled fields are
// refused, whole numbers must be written as such and fit, and each complaint names its field and says what would be
// right.
package web

import (
	"cmp"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says what a server is called and where its limits are. The zero value of a field means its default.
type Config struct {
	Service  string               // title of the API
	Version  string               // default "dev"
	Log      *slog.Logger         // default discards
	Registry *prometheus.Registry // served on /metrics; default a new one
	MaxBody  int64                // bytes of a request body, default 1 MiB

	ReadTimeout time.Duration // of a request's headers and body together, on every path, default 10 s
	Timeout     time.Duration // of a request on every path, from the end of its headers to the end of its handler, default 30 s
	Drain       time.Duration // how long it still accepts requests after it said that it is not ready, default 0
	Grace       time.Duration // how long a stop waits for running requests, default 8 s
}

// Server serves one service's API together with /healthz, /readyz, /metrics and /openapi.json. Several can live in one
// process: nothing of it is global. Register everything before the first request, or before [Server.Release]; after
// that it is safe for concurrent use.
type Server struct {
	// API takes the operations: huma.Register(server.API, operation, handler).
	API huma.API

	cfg       Config
	log       *slog.Logger
	mux       *http.ServeMux
	metrics   metrics
	health    health
	exchanges exchanges
}

// New returns a server that is ready to take operations.
func New(cfg Config) *Server {
	cfg.Version = cmp.Or(cfg.Version, "dev")
	cfg.MaxBody = cmp.Or(cfg.MaxBody, 1<<20)
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, 10*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Grace = cmp.Or(cfg.Grace, 8*time.Second)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	s := &Server{cfg: cfg, log: cfg.Log, mux: http.NewServeMux(), metrics: newMetrics(cfg.Registry)}
	s.API = humago.New(s.mux, s.apiConfig())
	s.API.UseMiddleware(s.operate)

	s.mux.HandleFunc("GET /healthz", s.serveHealth)
	s.mux.HandleFunc("GET /readyz", s.serveReady)
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{}))
	s.mux.HandleFunc("GET /openapi.json", serveOpenAPI(s.API))
	s.mux.HandleFunc("/", s.serveUnmatched)
	return s
}

// Handle adds a plain handler, for what is not an operation of the API: pages, event streams. The pattern is
// net/http's.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// apiConfig is huma's configuration without what reaches outside the API object: its default one shares maps between
// APIs, loads the documentation page's scripts from other hosts, and adds a $schema field to every response.
func (s *Server) apiConfig() huma.Config {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[uuid.UUID](), reflect.TypeFor[uuidSchema]())
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:        "3.1.0",
			Info:           &huma.Info{Title: s.cfg.Service, Version: s.cfg.Version},
			Components:     &huma.Components{Schemas: registry},
			OnAddOperation: []huma.AddOpFunc{prepareOperation},
		},
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{s.finishError},
	}
}

// uuidSchema describes a uuid.UUID, which huma takes for any string. The one of zeros is nobody's id, and handlers take
// it for none at all; a field that has a use for it has a pattern of its own.
type uuidSchema struct{}

func (uuidSchema) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Format: "uuid", Pattern: "[1-9A-Fa-f]",
		PatternDescription: "a UUID, such as 01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f",
	}
}

func serveOpenAPI(api huma.API) http.HandlerFunc {
	document := sync.OnceValues(func() ([]byte, error) { return json.Marshal(api.OpenAPI()) })
	return func(w http.ResponseWriter, _ *http.Request) {
		body, err := document()
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(body) // the client is gone, nobody is left to tell
	}
}
