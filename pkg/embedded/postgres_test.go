package embedded_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/embedded"
)

func TestPostgres(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	srv, err := embedded.Postgres(ctx, embedded.PostgresConfig{Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	url, err := srv.Database(ctx, "order")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	var v string
	if err := conn.QueryRow(ctx, "select version()").Scan(&v); err != nil {
		t.Fatal(err)
	}
	t.Log(v, url)
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
}
