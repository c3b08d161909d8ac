package proxy

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// deafen makes the system drop every packet that arrives for a socket, before TCP sees it: nothing is acknowledged and
// nothing is refused, as when the other host has vanished.
func deafen(c syscall.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	})
	return errors.Join(err, set)
}
