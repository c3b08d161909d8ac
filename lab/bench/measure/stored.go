package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/converge-dev/converge/lab/bench/driver"
)

// storedSQL measures what the order service stored: from when it took the order to when it settled it.
const storedSQL = `SELECT extract(epoch FROM settled_at - created_at)::float8 FROM orders
WHERE created_at BETWEEN $1 AND $2 AND settled_at IS NOT NULL`

// Stored is the end-to-end latency of the orders of a window, as the order database has it.
func (s *System) Stored(ctx context.Context, w driver.Window) (Quantiles, error) {
	rows, err := s.Databases["order"].Query(ctx, storedSQL, w.From, w.To)
	if err != nil {
		return Quantiles{}, fmt.Errorf("read latencies: %w", err)
	}
	defer rows.Close()
	var all []time.Duration
	for rows.Next() {
		var seconds float64
		if err := rows.Scan(&seconds); err != nil {
			return Quantiles{}, fmt.Errorf("read latencies: %w", err)
		}
		all = append(all, time.Duration(seconds*float64(time.Second)))
	}
	return QuantilesOf(all), rows.Err()
}
