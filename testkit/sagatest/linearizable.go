package sagatest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// searchTime bounds how long an order of the calls is looked for.
const searchTime = time.Minute

// Linearizable has clients call at the same time, and checks that their answers could have been given one after the
// other, each at a moment between its call and its return (Herlihy and Wing, "Linearizability", 1990). step says
// whether an answer is right in a state, and what the state is then; it changes nothing. client is called for each of n
// clients, at the same time, and makes its calls through do.
func Linearizable[S comparable, In, Out any](t *testing.T, begin S, step func(is S, in In, out Out) (then S, ok bool), n int,
	client func(i int, do func(in In, call func() Out) Out)) {
	t.Helper()
	var now atomic.Int64
	histories := make([][]porcupine.Operation, n)
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			client(i, func(in In, call func() Out) Out {
				op := porcupine.Operation{ClientId: i, Input: in, Call: now.Add(1)}
				out := call()
				op.Output, op.Return = out, now.Add(1)
				histories[i] = append(histories[i], op)
				return out
			})
		})
	}
	clients.Wait()
	history := slices.Concat(histories...)
	if len(history) == 0 {
		t.Fatal("nobody called")
	}
	model := porcupine.Model{
		Init: func() any { return begin },
		Step: func(is, in, out any) (bool, any) {
			then, ok := step(is.(S), in.(In), out.(Out))
			return ok, then
		},
	}
	if result := porcupine.CheckOperationsTimeout(model, history, searchTime); result != porcupine.Ok {
		slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		var all strings.Builder
		for _, op := range history {
			fmt.Fprintf(&all, "\n%4d to %4d  client %d: %+v: %+v", op.Call, op.Return, op.ClientId, op.Input, op.Output)
		}
		t.Fatalf("the answers could not have been given one after the other (%s):%s", result, &all)
	}
}
