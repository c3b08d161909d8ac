package measure

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFunctionsOfAProfile(t *testing.T) {
	t.Parallel()
	const top = `File: order
Type: cpu
Duration: 5s, Total samples = 1000ms (20.00%)
Showing nodes accounting for 1000ms, 100% of 1000ms total
      flat  flat%   sum%        cum   cum%
     400ms 40.00% 40.00%      410ms 41.00%  internal/runtime/syscall/linux.Syscall6
     200ms 20.00% 60.00%      200ms 20.00%  runtime.futex
     100ms 10.00% 70.00%      300ms 30.00%  runtime.mallocgc (inline)
     100ms 10.00% 80.00%      100ms 10.00%  runtime.scanobject
      80ms  8.00% 88.00%       80ms  8.00%  runtime.memmove
      50ms  5.00% 93.00%       60ms  6.00%  encoding/json.(*decodeState).object
      40ms  4.00% 97.00%       90ms  9.00%  github.com/jackc/pgx/v5/pgconn.(*PgConn).peekMessage
      30ms  3.00%   100%      900ms 90.00%  github.com/converge-dev/converge/pkg/saga.(*consumer).run
         0     0%   100%      900ms 90.00%  net/http.(*conn).serve
`
	all := functions(top)
	if len(all) != 9 {
		t.Fatalf("%d functions: %+v", len(all), all)
	}
	if diff := cmp.Diff(Function{"runtime.mallocgc", 100, 10, 30}, all[2]); diff != "" {
		t.Error(diff)
	}
	want := map[string]float64{ofCalls: 40, ofSched: 20, ofAlloc: 10, ofGC: 10, ofRuntime: 8, ofStd: 5, ofOthers: 4, ofOwn: 3}
	if diff := cmp.Diff(want, shares(all)); diff != "" {
		t.Error(diff)
	}
}
