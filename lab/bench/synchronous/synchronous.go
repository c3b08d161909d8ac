// Package synchronous is the design that the system is an alternative to, for `make compare`: POST /orders calls
// inventory and payment over HTTP, waits for both, and answers with a CONFIRMED order. It is what a careful team builds
// without messaging. Each service has its own database. The order is stored before anything is asked for; every call
// names the order, is idempotent, has a time-out, and is tried again with back-off; what fails is undone in reverse
// order, and whoever cannot be reached then is tried again for a while. A reconciliation, which something has to start,
// undoes what was left.
//
// Stock and money are rows of one status, as in the system's own tables, but the tables are this package's.
package synchronous

import (
	"context"
	"embed"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
)

//go:embed schema
var schema embed.FS

func migration(name string) pg.Migration {
	return pg.Migration{Name: name, FS: pg.Dir(schema, "schema/"+name)}
}

// Connections is how many connections each service's pool has unless told otherwise. It is generous: at 100 orders a
// second it lets payment take more than half a second each and still keep up.
const Connections = 64

// Run runs one of the three services until ctx ends.
func Run(ctx context.Context, name string, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	upper := strings.ToUpper(name)
	addr := s.Addr(upper+"_ADDR", "127.0.0.1:0", "where to serve HTTP")
	url := s.URL(upper+"_DATABASE_URL", "postgres://"+name+":"+name+"@127.0.0.1:5432/"+name, "the service's own PostgreSQL database", "postgres", "postgresql")
	conns := s.Int(upper+"_DATABASE_CONNECTIONS", Connections, 1, 1000, "connections to the database at most")
	cfg := web.Config{Service: name, Grace: 4 * time.Second}
	var register func(huma.API, *pgxpool.Pool)
	stop := func() {}
	switch name {
	case "order":
		o := newOrders(
			s.URL("INVENTORY_URL", "http://127.0.0.1:8082", "where inventory is", "http", "https"),
			s.URL("PAYMENT_URL", "http://127.0.0.1:8083", "where payment is", "http", "https"))
		o.abandoned = s.Duration("ORDER_ABANDONED_AFTER", time.Minute, deadline, time.Hour, "from which age on a reconciliation undoes PENDING orders")
		o.log = app.NewLogger(os.Stderr, name, s)
		register, stop = o.register, o.stop
	case "inventory":
		register, cfg.Timeout = registerInventory, attemptTimeout
	case "payment":
		declined := s.List("PAYMENT_DECLINE_USERS", []string{"declined-user"}, "decline what these users pay")
		register, cfg.Timeout = payments{declined}.register, attemptTimeout
	default:
		return fmt.Errorf("there is no service %q", name)
	}
	cfg.Log = app.NewLogger(os.Stderr, name, s)
	if done, err := app.Intercept(ctx, s, addr); done {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	listener, err := web.Listen(addr, upper+"_ADDR")
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // Serve has closed it already, unless the start failed
	db, err := pg.Open(ctx, url, pg.ApplicationName("synchronous "+name), pg.MaxConns(conns))
	if err != nil {
		return fmt.Errorf("%s_DATABASE_URL: %w", upper, err)
	}
	defer db.Close()
	if err := pg.Migrate(ctx, db, migration(name)); err != nil {
		return err
	}
	server := web.New(cfg)
	server.Ready("database", db.Ping)
	register(server.API, db)
	defer stop()
	return server.Serve(ctx, listener)
}
