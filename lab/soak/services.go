package soak

import (
	"time"

	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/system"
)

const partitions = 6

// sessionTimeout is the least that brokers allow by default.
const sessionTimeout = 6 * time.Second

// serviceNames lists who runs: the system's services and the witness.
func serviceNames() []string { return []string{"order", "inventory", "payment", witness.Name} }

func choreography() []saga.Service { return append(system.Choreography(), witness.Choreography()) }
