// Package readside is what services have in common that only write down what others tell, to answer questions about it:
// search, reports. Such a service can be rebuilt from the topics while it serves, says how far behind it is, and lets a
// client wait until it shows what the client has written.
//
// Each row belongs to a generation. A handler writes each fact to the generations that [Side.Routes] is asked to write
// to:
//
//	INSERT INTO documents (generation, ...) SELECT g, ... FROM unnest(...) AS d, generations_of($1) AS g ON CONFLICT ...
//
// and a query reads one of them, WHERE generation = (SELECT serving_generation()). The statements must be idempotent
// and come to the same whatever the order (the larger version wins, the earliest time does), because a rebuild reads
// the topics one after the other while new events come in.
package readside

import (
	"embed"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migration is the schema: one table, two functions.
func Migration() pg.Migration {
	return pg.Migration{Name: "readside", FS: pg.Dir(migrations, "migrations")}
}

// Target is where handlers write: to every generation that is in use, or, while it is rebuilt, to one of them.
type Target int64

// Live is the target of what comes from the topics as it happens.
const Live Target = 0

// Side is a service as this package sees it.
type Side struct {
	Name   string // the service's, and so its consumer group's
	Routes func(Target) []saga.Route
	Tables []string // those with a column generation
}

// Service is the side's part of the choreography.
func (s Side) Service() saga.Service { return saga.Service{Name: s.Name, Routes: s.Routes(Live)} }
