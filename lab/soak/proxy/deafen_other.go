//go:build !linux

package proxy

import (
	"errors"
	"syscall"
)

// deafen needs Linux.
func deafen(syscall.Conn) error { return errors.ErrUnsupported }
