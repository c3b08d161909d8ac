// Package naive is what the bench compares with: the same three steps over the same tables, written the way this is
// usually written. Each message is a transaction of its own, taken from a kafka-go Reader with a group and handled by
// its partition's worker; an outbox is polled every 100 ms while it is empty; a kafka-go Writer publishes. It makes no
// mistake that the system avoids (outbox and inbox are there, acks=all), and leaves out what costs time and is not part
// of the comparison: metrics, traces, idempotency keys, checks of the body.
package naive

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// Run runs one service with the settings that the system's services have, until ctx ends.
func Run(ctx context.Context, name string, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	upper := strings.ToUpper(name)
	addr := s.Addr(upper+"_ADDR", "127.0.0.1:0", "where to serve HTTP")
	url := s.URL(upper+"_DATABASE_URL", "", "database", "postgres")
	brokers := s.Addrs("KAFKA_BROKERS", []string{"127.0.0.1:9092"}, "brokers")
	if err := s.Err(); err != nil {
		return err
	}
	db, err := pg.Open(ctx, url, pg.ApplicationName("usual "+name))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := pg.Migrate(ctx, db, outbox.Migration(), inbox.Migration(), pg.Migration{Name: name, FS: migrations.For(name)}); err != nil {
		return err
	}

	svc := &service{name: name, db: db, broker: brokers[0]}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	g, ctx := errgroup.WithContext(ctx)
	switch name {
	case "order":
		mux.HandleFunc("POST /orders", svc.place)
		g.Go(func() error { return svc.consume(ctx, Paid, svc.confirm) })
	case "inventory":
		mux.HandleFunc("PUT /products/{id}", svc.putProduct)
		g.Go(func() error { return svc.consume(ctx, Created, svc.reserve) })
	case "payment":
		g.Go(func() error { return svc.consume(ctx, Reserved, svc.charge) })
	default:
		return fmt.Errorf("there is no service %q", name)
	}
	g.Go(func() error { return svc.relay(ctx) })
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	g.Go(func() error {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
		defer cancel()
		return server.Shutdown(grace)
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
