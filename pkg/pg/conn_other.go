//go:build !linux

package pg

import (
	"syscall"
	"time"
)

// giveUpAfter does nothing where the kernel has no TCP_USER_TIMEOUT: probes find an idle connection, and deadlines of
// the callers a busy one.
func giveUpAfter(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
