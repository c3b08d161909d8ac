package soak

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// proxy stands between the services and a server, so that their connections can be cut.
type proxy struct {
	addr   string
	target string
	ln     net.Listener
	cutter *commitCutter // nil: bytes are passed on unread

	swallows atomic.Bool // nothing comes through

	mu    sync.Mutex
	links map[*link]struct{}
	open  sync.WaitGroup
}

// link is one connection through the proxy.
type link struct {
	client, server *net.TCPConn
	once           sync.Once
	dead           atomic.Bool // for ever: nothing that either side sends arrives, and neither is told
}

// cut ends the connection as if a cable had been pulled: what is on its way is lost.
func (l *link) cut() {
	l.once.Do(func() {
		for _, c := range []*net.TCPConn{l.client, l.server} {
			_ = c.SetLinger(0) // a reset, at once
			_ = c.Close()
		}
	})
}

// newProxy listens at an address of its own, for good.
func newProxy(ctx context.Context, target string, cutter *commitCutter) (*proxy, error) {
	addr, err := rig.FreeAddr()
	if err != nil {
		return nil, err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: addr, target: target, ln: ln, cutter: cutter, links: map[*link]struct{}{}}
	p.open.Go(p.accept)
	return p, nil
}

func (p *proxy) close() {
	if p == nil {
		return
	}
	_ = p.ln.Close() // the loop ends with its error
	for _, l := range p.all() {
		l.cut()
	}
	p.open.Wait()
}

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.open.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

func (p *proxy) serve(client *net.TCPConn) {
	server, err := (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp", p.target)
	if err != nil {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server.(*net.TCPConn)}
	p.mu.Lock()
	p.links[l] = struct{}{}
	if p.swallows.Load() {
		l.die()
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()

	var both sync.WaitGroup
	if p.cutter == nil {
		both.Go(func() { passOn(l.server, l.client) })
		both.Go(func() { passOn(l.client, l.server) })
	} else {
		w := p.cutter.watch(l)
		both.Go(func() { w.up() })
		both.Go(func() { w.down() })
	}
	both.Wait()
	l.once.Do(func() { _ = l.client.Close(); _ = l.server.Close() })
}

// die lets the connection be as if the other host had vanished: packets are dropped, and no reset comes.
func (l *link) die() {
	l.dead.Store(true)
	for _, c := range []*net.TCPConn{l.client, l.server} {
		_ = deafen(c) // where the system cannot, what arrives is read and dropped
	}
}

// swallow lets every connection die, and each that is made while it lasts. It returns how many there were.
func (p *proxy) swallow() int {
	p.swallows.Store(true)
	links := p.all()
	for _, l := range links {
		l.die()
	}
	return len(links)
}

// spit lets new connections through again. Those that died stay dead.
func (p *proxy) spit() {
	p.swallows.Store(false)
}

// passOn copies one direction to its end, and ends the other side's reading with it.
func passOn(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		_ = to.CloseWrite()
		return
	}
	_ = to.Close()
	_ = from.Close()
}

func (p *proxy) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// cutOne cuts a connection at random, if there is one.
func (p *proxy) cutOne(rnd *rand.Rand) bool {
	links := p.all()
	// The map has no order: one of addresses makes the choice as repeatable as the connections are.
	slices.SortFunc(links, func(a, b *link) int {
		return a.client.RemoteAddr().(*net.TCPAddr).Port - b.client.RemoteAddr().(*net.TCPAddr).Port
	})
	if len(links) == 0 {
		return false
	}
	links[rnd.IntN(len(links))].cut()
	return true
}

// commitCutter decides which commits lose their answer.
type commitCutter struct {
	wanted atomic.Int64
	done   atomic.Int64
	trap   atomic.Pointer[trap]
}

// trap waits for a connection that is inside a transaction, between two of its round trips, with locks on rows. It holds the
// answer back that the service waits for until it is released.
type trap struct {
	caught   chan struct{}
	released chan struct{}
}

// set sets a trap for the next such connection.
func (c *commitCutter) set() *trap {
	t := &trap{caught: make(chan struct{}), released: make(chan struct{})}
	c.trap.Store(t)
	return t
}

// release lets the answer go, if one is held, and takes the trap away.
func (c *commitCutter) release(t *trap) {
	c.trap.CompareAndSwap(t, nil)
	close(t.released)
}

// take uses up one wanted cut.
func (c *commitCutter) take() bool {
	for {
		n := c.wanted.Load()
		if n <= 0 {
			return false
		}
		if c.wanted.CompareAndSwap(n, n-1) {
			c.done.Add(1)
			return true
		}
	}
}
