package payment

import (
	"context"
	"math"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
)

// Run runs the service until ctx ends, with settings from getenv.
func Run(ctx context.Context, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	rule := Rule{
		Above: int64(s.Int("PAYMENT_DECLINE_ABOVE", 1_000_000, 0, math.MaxInt, "decline amounts above this, in minor units; 0 declines none")),
		Users: s.List("PAYMENT_DECLINE_USERS", []string{"declined-user"}, "decline what these users pay, with commas between them; a comma alone means nobody"),
	}
	return app.Run(ctx, s, app.Service{
		Service:    Choreography(rule),
		Addr:       "127.0.0.1:8083",
		Migrations: migrations.For("payment"),
		Setup: func(rt *app.Runtime) error {
			register(rt.Web.API, rt.Pool)
			return nil
		},
	})
}
