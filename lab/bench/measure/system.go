package measure

import (
	"github.com/converge-dev/converge/lab/bench/testbed"
	"github.com/converge-dev/converge/lab/rig"
)

// System is what is measured, with what it runs on.
type System struct {
	Servers   testbed.Servers
	Processes []*rig.Process
	Databases testbed.Databases
	Metrics   bool // whether its services have /metrics
}
