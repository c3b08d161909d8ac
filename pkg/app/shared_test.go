package app_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

type mailSent struct {
	OrderID string `json:"orderId"`
}

var mailSentTopic = saga.NewTopic[mailSent]("mail.sent")

// mailing is a service whose one table has the given name.
func mailing(table string) app.Service {
	return app.Service{
		Service: saga.Service{Name: "mailing", Routes: []saga.Route{saga.On(pointsGranted,
			func(ctx context.Context, tx pgx.Tx, m saga.Msg[pointsGrantedV1]) ([]saga.Out, error) {
				_, err := tx.Exec(ctx, `INSERT INTO `+table+` (order_id) VALUES ($1)`, m.Key)
				return saga.Emit(m, mailSentTopic, mailSent{m.Key}), err
			}, mailSentTopic)}},
		Addr:       "127.0.0.1:0",
		Migrations: fstest.MapFS{"00001_mails.sql": {Data: []byte("-- +goose Up\nCREATE TABLE " + table + " (order_id text PRIMARY KEY);\n")}},
	}
}

// with adds a parameter to a database's URL.
func with(url, parameter string) string {
	if strings.Contains(url, "?") {
		return url + "&" + parameter
	}
	return url + "?" + parameter
}

// Services whose tables have different names work in one database, and any services do in schemas of their own: what
// one says leaves, and reaches the other.
func TestServicesInOneDatabase(t *testing.T) {
	for _, tt := range []struct{ name, table, loyalty, mailing string }{
		{"one schema", "mails", "public", "public"},
		{"a schema each", "points", "loyalty", "mailing"}, // the other's table has the same name
		{"a schema beside public", "points", "public", "mailing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster, url := brokertest.Fake(t), pgtest.URL(t)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			for _, schema := range []string{tt.loyalty, tt.mailing} {
				if _, err := conn.Exec(t.Context(), `CREATE SCHEMA IF NOT EXISTS `+schema); err != nil {
					t.Fatal(err)
				}
			}
			conn.Close(t.Context())
			env := map[string]string{
				"LOYALTY_ADDR": pgtest.FreeAddr(t), "MAILING_ADDR": pgtest.FreeAddr(t), "KAFKA_BROKERS": cluster.Brokers()[0], "KAFKA_PARTITIONS": "1",
				"LOYALTY_DATABASE_URL": with(url, "search_path="+tt.loyalty), "MAILING_DATABASE_URL": with(url, "search_path="+tt.mailing), "LOG_LEVEL": "error",
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 2)
			go func() { done <- Run(ctx, getenv(env)) }()
			go func() { done <- app.Run(ctx, app.NewSettings(getenv(env)), mailing(tt.table)) }()
			defer func() {
				cancel()
				for range 2 {
					if err := <-done; err != nil {
						t.Errorf("stopped with %v", err)
					}
				}
			}()
			client, err := broker.Open(broker.Config{Brokers: cluster.Brokers()})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			order := uuid.Must(uuid.NewV7())
			confirmed, err := saga.Encode("order", saga.New(ctx, event.OrderConfirmed, order.String(), event.OrderConfirmedV1{OrderID: order}))
			if err != nil {
				t.Fatal(err)
			}
			until(t, "the topic takes an event", func() bool { return client.Produce(ctx, []broker.Record{confirmed})[0] == nil })
			var sent []string
			until(t, "both services said what they had to", func() bool {
				sent = nil
				err := client.Scan(ctx, mailSentTopic.Name(), func(r broker.Record) error { sent = append(sent, string(r.Value)); return nil })
				return err == nil && len(sent) > 0
			})
			if want := fmt.Sprintf(`{"orderId":"%s"}`, order); len(sent) != 1 || sent[0] != want {
				t.Errorf("sent %v, want %s once", sent, want)
			}
		})
	}
}

// A service that finds another one's table under the name of its own is refused, with what is wrong and what would be
// right.
func TestAnotherServicesTable(t *testing.T) {
	url := pgtest.URL(t)
	pool, err := pg.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), `CREATE TABLE mails (somebody text)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	env := map[string]string{"MAILING_ADDR": pgtest.FreeAddr(t), "MAILING_DATABASE_URL": url, "KAFKA_BROKERS": pgtest.FreeAddr(t), "LOG_LEVEL": "error"}
	err = app.Run(ctx, app.NewSettings(getenv(env)), mailing("mails"))
	for _, want := range []string{"mails", "already exists", pg.Addr(pool), "MAILING_DATABASE_URL name a database of mailing's own", "search_path=mailing"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

// An operation that publishes what its service does not declare fails at its first call, and leaves nothing behind.
func TestAnUndeclaredEventOfAnOperation(t *testing.T) {
	url := pgtest.URL(t)
	env := map[string]string{"MAILING_ADDR": pgtest.FreeAddr(t), "MAILING_DATABASE_URL": url, "KAFKA_BROKERS": pgtest.FreeAddr(t), "LOG_LEVEL": "error"}
	svc, failed := mailing("mails"), make(chan error, 2)
	svc.Setup = func(rt *app.Runtime) error {
		publish := func(ctx context.Context) error {
			return pg.InTx(ctx, rt.Pool, func(tx pgx.Tx) error {
				return saga.Publish(ctx, tx, "mailing", saga.New(ctx, pointsGranted, "k", pointsGrantedV1{OrderID: "k"}))
			})
		}
		huma.Post(rt.Web.API, "/mails", func(ctx context.Context, _ *struct{}) (*struct{}, error) {
			err := publish(ctx)
			failed <- err
			return nil, err
		})
		rt.Go(func(ctx context.Context) error { failed <- publish(ctx); return nil })
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx, app.NewSettings(getenv(env)), svc) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stopped with %v", err)
		}
	}()
	var status int
	until(t, "the operation is served", func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+env["MAILING_ADDR"]+"/mails", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		status = res.StatusCode
		return status != http.StatusServiceUnavailable
	})
	if status != http.StatusInternalServerError {
		t.Errorf("the operation answers %d", status)
	}
	for range 2 { // of the operation, and of the background work
		if err := <-failed; err == nil || !strings.Contains(err.Error(), "publish points.granted: mailing does not declare the topic") {
			t.Errorf("%v", err)
		}
	}
}
