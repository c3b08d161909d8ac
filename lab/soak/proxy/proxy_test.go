package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a server that says what it hears.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }() // ends with the connection
		}
	}()
	return ln.Addr().String()
}

// hears sends a message that PostgreSQL's protocol allows, and tells what comes of it within the time.
func hears(c net.Conn, within time.Duration) error {
	text := frame('Q', "x")
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := c.Write(text); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len(text)))
	return err
}

// What a black hole has swallowed hears nothing any more: no answer and no reset, not even when it is over. The same
// goes for who comes while it is there, and not for who comes after it.
func TestBlackHole(t *testing.T) {
	p, err := New(t.Context(), echo(t), &Cutter{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	connect := func() net.Conn {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	silent := func(c net.Conn, which string) {
		if err := hears(c, 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection %s hears %v", which, err)
		}
	}
	before := connect()
	if err := hears(before, 5*time.Second); err != nil {
		t.Fatalf("it is not there: %v", err)
	}
	if n := p.Swallow(); n != 1 {
		t.Errorf("%d connections are swallowed", n)
	}
	silent(before, "from before")
	if unheard := unacknowledged(t, before); unheard == 0 {
		t.Error("what it sent is acknowledged")
	}
	meanwhile := connect()
	silent(meanwhile, "from meanwhile")
	p.Spit()
	if err := hears(connect(), 5*time.Second); err != nil {
		t.Errorf("a new connection does not get through: %v", err)
	}
	silent(before, "from before, later,")
	silent(meanwhile, "from meanwhile, later,")
}
