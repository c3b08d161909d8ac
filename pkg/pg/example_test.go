package pg_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/converge-dev/converge/pkg/pg"
)

// Callers that come while a transaction is at work share the next one.
func ExampleBatcher() {
	b := pg.NewBatcher(100, time.Second, func(_ context.Context, names []string) ([]pg.Result[string], error) {
		results := make([]pg.Result[string], len(names)) // here: one transaction, one INSERT ... SELECT FROM unnest($1)
		for i, name := range names {
			if name == "" {
				results[i].Err = fmt.Errorf("a name is missing")
				continue
			}
			results[i].Value = "stored " + name
		}
		return results, nil
	})
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(func() { _, _ = b.Do(context.Background(), "somebody") })
	}
	fmt.Println(b.Do(context.Background(), "ada"))
	_, err := b.Do(context.Background(), "")
	fmt.Println(err)
	callers.Wait()
	b.Wait()
	// Output:
	// stored ada <nil>
	// a name is missing
}
