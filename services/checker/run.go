package checker

import (
	"context"
	"time"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/checker"
)

// Run runs the checker until ctx ends.
func Run(ctx context.Context, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	url := func(name, def, whose string) string {
		return s.URL(name, def, "where "+whose+" serves HTTP", "http", "https")
	}
	cfg := Config{
		OrderURL:     url("ORDER_URL", "http://127.0.0.1:8081", "order"),
		InventoryURL: url("INVENTORY_URL", "http://127.0.0.1:8082", "inventory"),
		PaymentURL:   url("PAYMENT_URL", "http://127.0.0.1:8083", "payment"),
		ProfileURL:   url("PROFILE_URL", "http://127.0.0.1:8084", "profile"),
		SearchURL: s.URL("SEARCH_URL", "", "where search serves HTTP, to be compared with inventory's products and profile's users; empty: it is not",
			"http", "https"),
		PendingAfter: s.Duration("CHECK_PENDING_AFTER", 20*time.Minute, time.Second, 30*24*time.Hour,
			"an order that is PENDING for longer is stuck; more than order's ORDER_DEADLINE"),
		CancellingAfter: s.Duration("CHECK_CANCELLING_AFTER", 10*time.Minute, time.Second, 30*24*time.Hour, "an order that is CANCELLING for longer is stuck"),
	}
	var plan checker.Schedule
	cfg.Config, plan = checker.ReadSettings(s)
	return app.Run(ctx, s, checker.App("checker", "127.0.0.1:8087", cfg.declare(), plan))
}
