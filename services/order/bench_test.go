package order

import (
	"net/http"
	"testing"
)

// BenchmarkPost places orders from 64 clients at once, through the handlers into a real database (without fsync), and tells
// how many orders share a commit.
func BenchmarkPost(b *testing.B) {
	c := setup(b)
	body := draft("u-1")
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if w := c.post(body, ""); w.Code != http.StatusAccepted {
				b.Errorf("%d %s", w.Code, w.Body)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(c.commits.Load())/float64(b.N), "commits/order")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
}
