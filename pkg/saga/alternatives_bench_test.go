package saga_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// These benchmarks weigh designs against each other that the services could have: each is one transaction on a durable
// server with a batch of messages, as a consumer's round trip to its commit. See docs/performance.md, "Tried".

// durable is a database with inbox and outbox on a durable server.
func durable(b *testing.B) *pgxpool.Pool {
	b.Helper()
	db := pgtest.Durable(b)
	if err := pg.Migrate(b.Context(), db, inbox.Migration(), outbox.Migration()); err != nil {
		b.Fatal(err)
	}
	return db
}

var batchSizes = [...]int{1, 15, 100}

// weigh runs transactions of each batch size and reports, per message, the time and the WAL.
func weigh(b *testing.B, db *pgxpool.Pool, name string, queue func(batch *pgx.Batch, n int)) {
	for _, n := range batchSizes {
		b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
			before := walBytes(b, db)
			for b.Loop() {
				if err := pg.InTx(b.Context(), db, func(tx pgx.Tx) error {
					var batch pgx.Batch
					queue(&batch, n)
					return pg.Defer(b.Context(), tx, &batch)
				}); err != nil {
					b.Fatal(err)
				}
			}
			messages := float64(b.N * n)
			b.ReportMetric(float64(b.Elapsed().Microseconds())/messages, "µs/message")
			b.ReportMetric(float64(walBytes(b, db)-before)/messages, "WAL-B/message")
		})
	}
}

func walBytes(b *testing.B, db *pgxpool.Pool) (n int64) {
	b.Helper()
	if err := db.QueryRow(b.Context(), `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`).Scan(&n); err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkInbox compares a row per message with a row per partition that holds the next offset and is updated with its
// expected value, and with no inbox at all, for handlers that their own keys make idempotent.
func BenchmarkInbox(b *testing.B) {
	db := durable(b)
	const work = `INSERT INTO work (id) SELECT unnest($1::uuid[])`
	for _, sql := range []string{
		`CREATE TABLE work (id uuid PRIMARY KEY)`,
		`CREATE TABLE offsets (consumer text, partition int, next bigint, PRIMARY KEY (consumer, partition)) WITH (fillfactor = 50)`,
		`INSERT INTO offsets SELECT 'bench', p, 0 FROM generate_series(0, 5) AS p`,
	} {
		if _, err := db.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	ids := func(n int) []uuid.UUID {
		out := make([]uuid.UUID, n)
		for i := range out {
			out[i] = uuid.Must(uuid.NewV7())
		}
		return out
	}
	weigh(b, db, "rows", func(batch *pgx.Batch, n int) {
		messages := ids(n)
		batch.Queue(work, messages)
		inbox.Record(batch, "bench", messages)
	})
	next := [6]int64{}
	weigh(b, db, "offsets", func(batch *pgx.Batch, n int) {
		batch.Queue(work, ids(n))
		var partitions []int32
		var expected, then []int64
		for p := range min(n, len(next)) {
			partitions, expected = append(partitions, int32(p)), append(expected, next[p])
			next[p]++
			then = append(then, next[p])
		}
		batch.Queue(`UPDATE offsets AS o SET next = n.after FROM unnest($1::int[], $2::bigint[], $3::bigint[]) AS n (partition, expected, after)
			WHERE o.consumer = 'bench' AND o.partition = n.partition AND o.next = n.expected`, partitions, expected, then)
	})
	weigh(b, db, "none", func(batch *pgx.Batch, n int) { batch.Queue(work, ids(n)) })
}

// BenchmarkOutbox compares the outbox table, whose rows are deleted again, with messages in the WAL, for a replication
// slot to read, which would cost extra.
func BenchmarkOutbox(b *testing.B) {
	db := durable(b)
	value := []byte(`{"orderId":"` + uuid.NewString() + `","items":[{"productId":"product-1","quantity":2},{"productId":"product-2","quantity":1}],"amount":2500,"currency":"EUR"}`)
	headers := strings.Repeat(`["ce_header","`+uuid.NewString()+`"],`, 10)
	text := string(value) + headers
	msgs := func(n int) []outbox.Message {
		out := make([]outbox.Message, n)
		for i := range out {
			out[i] = outbox.Message{Topic: "bench", Key: []byte("key"), Value: []byte(text)}
		}
		return out
	}
	last := int64(0)
	weigh(b, db, "table", func(batch *pgx.Batch, n int) {
		if _, err := (*outbox.Relay)(nil).Queue(batch, msgs(n)); err != nil {
			b.Fatal(err)
		}
		// What an earlier transaction wrote is deleted, as the relay does, by key.
		batch.Queue(`DELETE FROM outbox WHERE id = ANY(ARRAY(SELECT generate_series($1::bigint + 1, $1::bigint + $2::bigint)))`, last, int64(n))
		last += int64(n)
	})
	texts := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = text
		}
		return out
	}
	weigh(b, db, "wal", func(batch *pgx.Batch, n int) {
		batch.Queue(`SELECT count(pg_logical_emit_message(true, 'bench', m)) FROM unnest($1::text[]) AS m`, texts(n))
	})
}

// BenchmarkKeys compares keys in the order of time, as all ids here are, with random ones, in an inbox that holds a
// million messages: where the new rows of a transaction fall together in the index, and where they are strewn over it.
func BenchmarkKeys(b *testing.B) {
	for name, id := range map[string]string{"time-ordered": "uuidv7()", "random": "uuidv4()"} {
		db := durable(b)
		for _, sql := range []string{
			`INSERT INTO inbox (consumer, id) SELECT 'bench', ` + id + ` FROM generate_series(1, 1000000)`,
			`CHECKPOINT`, // the first change of each page after it is logged in full
		} {
			if _, err := db.Exec(b.Context(), sql); err != nil {
				b.Fatal(err)
			}
		}
		weigh(b, db, name, func(batch *pgx.Batch, n int) {
			batch.Queue(`INSERT INTO inbox (consumer, id) SELECT 'bench', `+id+` FROM generate_series(1, $1::int)`, n)
		})
	}
}
