//go:build !linux

package soak

import (
	"errors"
	"syscall"
)

// deafen needs Linux.
func deafen(syscall.Conn) error { return errors.ErrUnsupported }
