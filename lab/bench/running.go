package bench

import (
	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/testbed"
	"github.com/converge-dev/converge/lab/rig"
)

// bench is what all legs share.
type bench struct {
	*testbed.Testbed
	opts plan.Options
	say  func(format string, args ...any)
}

// running is a system with its driver.
type running struct {
	measure.System
	name   string     // what begins the names of its profiles
	launch rig.Launch // that started it
	driver *driver.Driver
}
