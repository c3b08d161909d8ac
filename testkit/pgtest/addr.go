package pgtest

import (
	"net"
	"testing"
)

// FreeAddr is an address on 127.0.0.1 that nobody listens on, for a server that must be told where to listen.
func FreeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // it was only to find a port
	return ln.Addr().String()
}
