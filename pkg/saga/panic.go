package saga

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// errPanic is a panic of a message's code, as an error like any other: a message that makes its handler, its Validate
// or its UnmarshalJSON panic must not stop the others.
var errPanic = errors.New("handler panicked")

// panicError is a panic where it was caught, with the stack for the log.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("%v: %v", errPanic, e.value) }
func (e *panicError) Unwrap() error { return errPanic }

// recovered makes a panic the error of the function that defers it.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &panicError{p, debug.Stack()}
	}
}

// speak makes sure that an error, and every one in it, can say what it is: its text is read in many places.
func speak(err error) (safe error) {
	defer recovered(&safe)
	var walk func(error)
	walk = func(err error) {
		_ = err.Error()
		switch err := err.(type) { //nolint:errorlint // it looks at each
		case interface{ Unwrap() error }:
			if inner := err.Unwrap(); inner != nil {
				walk(inner)
			}
		case interface{ Unwrap() []error }:
			for _, inner := range err.Unwrap() {
				walk(inner)
			}
		}
	}
	walk(err)
	return err
}
