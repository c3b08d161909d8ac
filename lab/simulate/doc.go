// Package simulate runs the whole order saga, the handlers of order, inventory and payment on their databases, through
// random histories of everything that can go wrong between them, and holds the three against each other at the end. See
// [github.com/converge-dev/converge/testkit/sagatest.Converges]; `make simulate` tries more histories than the tests
// do.
package simulate
