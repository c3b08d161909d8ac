// Package naive is what the bench compares with: the same three steps over the same tables, written the way this is usually
// written. Each message is a transaction of its own, taken from a kafka-go Reader with a group and handled by its partition's
// worker; an outbox is polled every 100 ms while it is empty; a kafka-go Writer publishes. It makes no mistake that the system avoids (outbox and inbox are there, acks=all), and
// leaves out what costs time and is not part of the comparison: metrics, traces, idempotency keys, checks of the body.
package naive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// prefix keeps the topics apart from the system's own on the same cluster.
const prefix = "usual."

// The topics of the happy path, which is all that the bench takes.
var (
	Created   = prefix + event.OrderCreated.Name()
	Reserved  = prefix + event.InventoryReserved.Name()
	Paid      = prefix + event.PaymentCompleted.Name()
	Confirmed = prefix + event.OrderConfirmed.Name()
)

// Topics are all that have to exist.
func Topics() []string { return []string{Created, Reserved, Paid, Confirmed} }

// service is one of the three.
type service struct {
	name   string
	db     *pgxpool.Pool
	broker string
}

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

// pollEvery is how often the outbox is looked at; most outboxes are polled less often.
const pollEvery = 100 * time.Millisecond

const (
	readOutboxSQL   = `SELECT id, topic, key, value, headers FROM outbox ORDER BY id LIMIT 1000`
	deleteOutboxSQL = `DELETE FROM outbox WHERE id = ANY($1)`
)

// relay publishes what is in the outbox. It waits for the next poll only when it has found nothing: what came while it
// published goes at once.
func (s *service) relay(ctx context.Context) error {
	w := &kafka.Writer{
		Addr: kafka.TCP(s.broker), Balancer: kafka.Murmur2Balancer{}, RequiredAcks: kafka.RequireAll,
		BatchSize: 1000, BatchTimeout: 5 * time.Millisecond,
	}
	defer w.Close() //nolint:errcheck // WriteMessages has waited for everything
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		n, err := s.publish(ctx, w)
		if err != nil {
			return fmt.Errorf("relay of %s: %w", s.name, err)
		}
		if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *service) publish(ctx context.Context, w *kafka.Writer) (int, error) {
	rows, err := s.db.Query(ctx, readOutboxSQL)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var ids []int64
	var msgs []kafka.Message
	for rows.Next() {
		var id int64
		var m kafka.Message
		var headers []byte
		if err := rows.Scan(&id, &m.Topic, &m.Key, &m.Value, &headers); err != nil {
			return 0, err
		}
		m.Headers = []kafka.Header{{Key: "id", Value: headers}}
		ids, msgs = append(ids, id), append(msgs, m)
	}
	if err := rows.Err(); err != nil || len(msgs) == 0 {
		return 0, err
	}
	if err := w.WriteMessages(ctx, msgs...); err != nil {
		return 0, err
	}
	_, err = s.db.Exec(ctx, deleteOutboxSQL, ids)
	return len(msgs), err
}

// emit is one event on its way into the outbox. Its id, which consumers deduplicate by, goes where headers are kept.
type emit struct {
	topic string
	id    uuid.UUID
	key   uuid.UUID
	value any
}

const insertOutboxSQL = `INSERT INTO outbox (topic, key, value, headers) VALUES ($1, $2, $3, $4)`

func (e emit) args() ([]any, error) {
	value, err := json.Marshal(e.value)
	return []any{e.topic, []byte(e.key.String()), value, e.id.String()}, err
}
