package payment

import (
	"context"
	"math"
	"regexp"
	"time"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
)

const (
	retryEvery = time.Second
	foldEvery  = time.Second

	// maxOpening is far from where the sum of what ten thousands of accounts begin with overflows.
	maxOpening = 1_000_000_000_000
)

// merchantName is what the merchant's accounts may be called.
var merchantName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`)

// Run runs the service until ctx ends, with settings from getenv.
func Run(ctx context.Context, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	cfg := Config{
		Rule: Rule{
			Above: int64(s.Int("PAYMENT_DECLINE_ABOVE", 1_000_000, 0, math.MaxInt, "decline amounts above this, in minor units; 0 declines none")),
			Users: s.List("PAYMENT_DECLINE_USERS", []string{"declined-user"}, "decline what these users pay, with commas between them; a comma alone means nobody"),
		},
		Opening:  int64(s.Int("OPENING_BALANCE", 0, 0, maxOpening, "what a user's account holds when its first use opens it, in minor units")),
		Merchant: s.String("MERCHANT_ACCOUNT", "merchant", "what the merchant's accounts are called, each with its currency behind it, as in merchant.EUR"),
		RetryMax: s.Duration("REFUND_RETRY_MAX", time.Minute, time.Second, 24*time.Hour, "between two attempts to pay an order back at most"),
		metrics:  newMetrics(),
	}
	reread := s.Duration("AUDIT_REREAD", 24*time.Hour, time.Minute, 30*24*time.Hour,
		"within which audits read again all entries that were audited before; a ledger of a million entries or less is read whole each time")
	if !merchantName.MatchString(cfg.Merchant) || cfg.Merchant == external || cfg.Merchant == suspense {
		s.Reject("MERCHANT_ACCOUNT", `1 to 60 letters, digits, dashes and underscores, and not "external" or "suspense"`)
	}
	c := newCashier(cfg)
	return app.Run(ctx, s, app.Service{
		Service:    Choreography(cfg),
		Addr:       "127.0.0.1:8083",
		Migrations: migrations.For("payment"),
		Blocks:     []pg.Migration{idempotency.Migration()},
		Setup: func(rt *app.Runtime) error {
			rt.Metrics.MustRegister(c.metrics.attempts, newWaitingRefunds(rt.Pool))
			(&handlers{db: rt.Pool, bank: c.bank}).register(rt.Web.API)
			(&repairer{cashier: c, db: rt.Pool, relay: rt.Relay}).register(rt.Web.API)
			facts.Server{DB: rt.Pool, Broker: rt.Broker, Service: Choreography(cfg), Source: source, Stopping: rt.Stopping, Audit: newAuditor(rt.Pool, reread).audit}.Register(rt.Web.API)
			rt.Go((&retrier{cashier: c, db: rt.Pool, relay: rt.Relay, log: rt.Log, every: retryEvery}).Run)
			rt.Go((&balanceFolder{db: rt.Pool, log: rt.Log, every: foldEvery}).Run)
			rt.Go(idempotency.Pruner{DB: rt.Pool, Keys: c.keys, Log: rt.Log}.Run)
			return nil
		},
	})
}
