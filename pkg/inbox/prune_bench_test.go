package inbox_test

import (
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/inbox"
)

// BenchmarkPruneForeign is what is left of a million messages of a foreign producer, whose ids do not tell when they
// came, after the retention.
func BenchmarkPruneForeign(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		b.StopTimer()
		db := database(b)
		if _, err := db.Exec(b.Context(), `INSERT INTO inbox (consumer, id, seen_at)
			SELECT 'a', gen_random_uuid(), now() - interval '2 hours' FROM generate_series(1, $1)`, n); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		pruned, err := inbox.Prune(b.Context(), db, time.Hour, 5000)
		b.StopTimer()
		if err != nil || pruned != n {
			b.Fatalf("pruned %d, %v", pruned, err)
		}
		if _, err := db.Exec(b.Context(), `VACUUM inbox`); err != nil {
			b.Fatal(err)
		}
		var rows, size int64
		if err := db.QueryRow(b.Context(), `SELECT (SELECT count(*) FROM inbox), pg_table_size('inbox')`).Scan(&rows, &size); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(rows), "rows-left")
		b.ReportMetric(float64(size)/1024, "KiB-left")
		b.StartTimer()
	}
}
