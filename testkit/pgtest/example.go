package pgtest

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// Example stands in for the testing.TB that an Example function does not get, so that it can use a database or a broker
// of the test kits. done ends what it used:
//
//	t, done := pgtest.Example()
//	defer done()
//	db := pgtest.New(t, "inbox", migrate)
//
// What would fail a test ends the process.
func Example() (t testing.TB, done func()) {
	tb := &exampleTB{}
	return tb, tb.done
}

type exampleTB struct {
	testing.TB // whatever is not defined here panics
	cleanups   []func()
}

func (*exampleTB) Helper()                           {}
func (*exampleTB) Name() string                      { return "Example" }
func (*exampleTB) Context() context.Context          { return context.Background() }
func (*exampleTB) Logf(string, ...any)               {}
func (tb *exampleTB) Cleanup(fn func())              { tb.cleanups = append(tb.cleanups, fn) }
func (tb *exampleTB) Error(args ...any)              { tb.Fatal(args...) }
func (tb *exampleTB) Errorf(format string, a ...any) { tb.Fatalf(format, a...) }
func (tb *exampleTB) Fatal(args ...any)              { tb.Fatalf("%s", fmt.Sprint(args...)) }

func (*exampleTB) TempDir() string {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	return dir
}

func (*exampleTB) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func (tb *exampleTB) done() {
	for _, fn := range tb.cleanups {
		defer fn() // the last first
	}
}
