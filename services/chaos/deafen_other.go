//go:build !linux

package chaos

import (
	"errors"
	"syscall"
)

// deafen needs Linux.
func deafen(syscall.Conn) error { return errors.ErrUnsupported }
