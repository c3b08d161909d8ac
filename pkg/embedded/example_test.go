package embedded_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/embedded"
)

// A server with a database and a role for each service, as on the real one.
func ExamplePostgres() {
	ctx := context.Background()
	srv, err := embedded.Postgres(ctx, embedded.PostgresConfig{}) // with a Dir, it finds its data again
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = srv.Stop() }()

	url, err := srv.Database(ctx, "inventory")
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	var database, role string
	if err := conn.QueryRow(ctx, "SELECT current_database(), current_user").Scan(&database, &role); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(database, role)
	// Output: inventory inventory
}

func ExampleKafka() {
	srv, err := embedded.Kafka(context.Background(), embedded.KafkaConfig{}) // with a Dir, it finds its topics again
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Stop()
	fmt.Println("KAFKA_BROKERS=" + srv.Addr())
}
