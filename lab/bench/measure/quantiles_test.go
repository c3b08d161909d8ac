package measure

import (
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var ds []time.Duration
	for i := range 1000 {
		ds = append(ds, time.Duration((i*7)%1000+1)*time.Millisecond) // 1 to 1000 ms, shuffled
	}
	for _, tc := range []struct {
		ds   []time.Duration
		want Quantiles
	}{
		{ds, Quantiles{P50: 500, P90: 900, P99: 990, Max: 1000}},
		{[]time.Duration{3 * time.Millisecond}, Quantiles{3, 3, 3, 3}},
		{[]time.Duration{2 * time.Millisecond, time.Millisecond}, Quantiles{1, 2, 2, 2}},
		{nil, Quantiles{}},
	} {
		if got := QuantilesOf(tc.ds); got != tc.want {
			t.Errorf("of %d: %+v, want %+v", len(tc.ds), got, tc.want)
		}
	}
}
