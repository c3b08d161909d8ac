// Package plan says what is measured: which systems, under which loads, and in which order.
package plan

// Mode is what does the work. Its value is the name on the command line and in reports.
type Mode string

// Converge is the system. Naive is what it is compared with, see package naive. SQLFloor is the least that the same
// work costs, see package sqlfloor.
const (
	Converge Mode = "converge"
	Naive    Mode = "usual"
	SQLFloor Mode = "floor"
)
