package payment

import (
	"strings"
	"testing"

	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t).db)
}

// What the ledger holds of an order is found in its index, by whoever asks: charges and refunds ask each time.
func TestTracesAreIndexed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, sql := range map[string]string{"trace": traceSQL, "trace of lost": traceOfLostSQL, "read for refund": readForRefundSQL, "due refund": dueRefundSQL} {
		text := b.plan(sql)
		if !strings.Contains(text, "entries_of_order") || strings.Contains(text, "Seq Scan on entries") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}

// plan is how PostgreSQL carries a statement out, whatever its parameters are. Only the simple protocol takes a
// statement without them.
func (b bundle) plan(sql string) string {
	b.Helper()
	conn, err := b.db.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	results, err := conn.Conn().PgConn().Exec(b.Context(), `EXPLAIN (GENERIC_PLAN) `+sql).ReadAll()
	if err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	for _, row := range results[0].Rows {
		text.Write(append(row[0], '\n'))
	}
	return text.String()
}
