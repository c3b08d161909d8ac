package proxy

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// unacknowledged is how many bytes the other host has not acknowledged.
func unacknowledged(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if ctrlErr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); ctrlErr != nil || err != nil {
		t.Fatal(ctrlErr, err)
	}
	return n
}
