// Package system knows all services together, for what looks at the whole: the stack in one process, the CLI, the graph
// and the tests. Services themselves never import each other.
package system

import (
	"context"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/analytics"
	"github.com/converge-dev/converge/services/checker"
	"github.com/converge-dev/converge/services/inventory"
	"github.com/converge-dev/converge/services/order"
	"github.com/converge-dev/converge/services/payment"
	"github.com/converge-dev/converge/services/profile"
	"github.com/converge-dev/converge/services/search"
)

// Service is one of the system's services.
type Service struct {
	Name string
	Addr string // where it listens unless told otherwise
	Run  func(ctx context.Context, getenv func(string) string) error
}

// Services lists them: first in the order in which an order meets them, then who is told, and who checks.
func Services() []Service {
	return []Service{
		{Name: "order", Addr: "127.0.0.1:8081", Run: order.Run},
		{Name: "inventory", Addr: "127.0.0.1:8082", Run: inventory.Run},
		{Name: "payment", Addr: "127.0.0.1:8083", Run: payment.Run},
		{Name: "profile", Addr: "127.0.0.1:8084", Run: profile.Run},
		{Name: "search", Addr: "127.0.0.1:8085", Run: search.Run},
		{Name: "analytics", Addr: "127.0.0.1:8086", Run: analytics.Run},
		{Name: "checker", Addr: "127.0.0.1:8087", Run: checker.Run},
	}
}

// Choreography is what they react to and emit. The checker takes no part in it.
func Choreography() []saga.Service {
	return []saga.Service{
		order.Choreography(), inventory.Choreography(), payment.Choreography(payment.Config{}),
		profile.Choreography(), search.Choreography(), analytics.Choreography(),
	}
}
