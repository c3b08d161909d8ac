package measure

import (
	"io"
	"net"
	"runtime"
	"testing"
)

// Each request that waits for its answer is one segment, however long it is.
func TestDataSegmentsAreWrites(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const requests, size = 7, 10_000
	go func() { // ends with the connection
		c, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, size)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			if _, err := c.Write([]byte{1}); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range requests {
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	segments, err := dataSegments(uint16(l.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	if got := segments[uint16(c.LocalAddr().(*net.TCPAddr).Port)]; got != requests && runtime.GOOS == "linux" {
		t.Errorf("%d segments, want %d", got, requests)
	}
}

func TestTripsSince(t *testing.T) {
	t.Parallel()
	a, b, c := dbConn{"order", 1}, dbConn{"order", 2}, dbConn{"payment", 1}
	before, after := map[dbConn]uint32{a: 10, b: 5}, map[dbConn]uint32{a: 17, c: 3}
	if got := tripsSince(after, before); got != 10 {
		t.Errorf("%d round trips, want 10", got)
	}
}
