package order

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
)

// BenchmarkPost places orders through the handlers into a real database (which does not wait for the disk) and tells
// how many commits an order costs.
func BenchmarkPost(b *testing.B) {
	for name, bench := range map[string]struct {
		clients int // per CPU
		keyed   bool
	}{
		"alone":         {clients: 0},
		"together":      {clients: 64},
		"together,keys": {clients: 64, keyed: true},
	} {
		b.Run(name, func(b *testing.B) {
			c := setup(b)
			body := draft("u-1")
			var n atomic.Int64
			post := func() {
				key := ""
				if bench.keyed {
					key = fmt.Sprint("k-", n.Add(1))
				}
				if w := c.post(body, key); w.Code != http.StatusAccepted {
					b.Errorf("%d %s", w.Code, w.Body)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			if bench.clients == 0 {
				for range b.N {
					post()
				}
			} else {
				b.SetParallelism(bench.clients)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						post()
					}
				})
			}
			b.StopTimer()
			b.ReportMetric(float64(c.commits.Load())/float64(b.N), "commits/order")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
		})
	}
}
