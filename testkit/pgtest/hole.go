package pgtest

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Hole is a way to a database that can swallow everything on it, without a reset, as a network does that drops packets:
// connections stay open, new ones are accepted, and nothing arrives. When it is open again, what was sent meanwhile
// arrives late.
type Hole struct {
	url    string
	target string
	ln     net.Listener

	mu     sync.Mutex
	pass   chan struct{} // closed while bytes pass
	conns  map[net.Conn]struct{}
	closed bool
	open   sync.WaitGroup
}

// NewHole opens a way to the database at url, which ends with the test.
func NewHole(t testing.TB, to string) *Hole {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &Hole{target: u.Host, ln: ln, pass: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(h.pass)
	u.Host = ln.Addr().String()
	h.url = u.String()
	h.open.Go(h.accept)
	t.Cleanup(h.close)
	return h
}

// URL connects to the database through the hole.
func (h *Hole) URL() string { return h.url }

// Swallow lets nothing through from now on.
func (h *Hole) Swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pass = make(chan struct{})
}

// Pass lets everything through again.
func (h *Hole) Pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.pass:
	default:
		close(h.pass)
	}
}

func (h *Hole) gate() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pass
}

func (h *Hole) close() {
	_ = h.ln.Close() // the loop ends with its error
	h.mu.Lock()
	h.closed = true
	for c := range h.conns {
		_ = c.Close()
	}
	h.mu.Unlock()
	h.Pass()
	h.open.Wait()
}

// keep remembers a connection to close at the end; false says that the end has come.
func (h *Hole) keep(c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		_ = c.Close()
		return false
	}
	h.conns[c] = struct{}{}
	return true
}

func (h *Hole) accept() {
	for {
		client, err := h.ln.Accept()
		if err != nil {
			return
		}
		if !h.keep(client) {
			return
		}
		h.open.Go(func() {
			<-h.gate()
			server, err := new(net.Dialer).DialContext(context.Background(), "tcp", h.target)
			if err != nil {
				_ = client.Close()
				return
			}
			if h.keep(server) {
				h.open.Go(func() { h.copy(server, client) })
				h.copy(client, server)
			}
		})
	}
}

// copy passes on one direction to its end, and then ends both.
func (h *Hole) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		<-h.gate()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
}
