// Package proxy stands between the services and a server, and breaks their connections in ways that networks and
// machines do: it cuts them, lets them die unheard, loses the answer to a commit, and holds a transaction where it has
// locked rows.
package proxy

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

// Proxy stands between the services and a server, so that their connections can be cut.
type Proxy struct {
	Addr   string  // where it listens
	Cutter *Cutter // nil: bytes are passed on unread
	target string
	ln     net.Listener

	swallows atomic.Bool // nothing comes through

	mu    sync.Mutex
	links map[*link]struct{}
	open  sync.WaitGroup
}

// New listens at an address of its own, for good.
func New(ctx context.Context, target string, cutter *Cutter) (*Proxy, error) {
	addr, err := rig.FreeAddr()
	if err != nil {
		return nil, err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: addr, Cutter: cutter, target: target, ln: ln, links: map[*link]struct{}{}}
	p.open.Go(p.accept)
	return p, nil
}

// Close cuts every connection and stops listening. A nil proxy has none.
func (p *Proxy) Close() {
	if p == nil {
		return
	}
	_ = p.ln.Close() // the loop ends with its error
	p.CutAll()
	p.open.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.open.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
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
	if p.Cutter == nil {
		both.Go(func() { passOn(l.server, l.client) })
		both.Go(func() { passOn(l.client, l.server) })
	} else {
		w := p.Cutter.watch(l)
		both.Go(func() { w.up() })
		both.Go(func() { w.down() })
	}
	both.Wait()
	l.once.Do(func() { _ = l.client.Close(); _ = l.server.Close() })
}

// Swallow lets every connection die, and each that is made while it lasts. It returns how many there were.
func (p *Proxy) Swallow() int {
	p.swallows.Store(true)
	links := p.all()
	for _, l := range links {
		l.die()
	}
	return len(links)
}

// Spit lets new connections through again. Those that died stay dead.
func (p *Proxy) Spit() {
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

func (p *Proxy) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// CutAll cuts every connection.
func (p *Proxy) CutAll() {
	for _, l := range p.all() {
		l.cut()
	}
}

// CutOne cuts a connection at random, if there is one.
func (p *Proxy) CutOne(rnd *rand.Rand) bool {
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
