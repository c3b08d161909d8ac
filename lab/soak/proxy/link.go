package proxy

import (
	"net"
	"sync"
	"sync/atomic"
)

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

// die lets the connection be as if the other host had vanished: packets are dropped, and no reset comes.
func (l *link) die() {
	l.dead.Store(true)
	for _, c := range []*net.TCPConn{l.client, l.server} {
		_ = deafen(c) // where the system cannot, what arrives is read and dropped
	}
}
