package proxy

import "sync/atomic"

// Cutter decides which commits lose their answer. It is for concurrent use.
type Cutter struct {
	Wanted atomic.Int64 // of the next commits, so many
	Done   atomic.Int64 // so far
	trap   atomic.Pointer[Trap]
}

// Trap waits for a connection that is inside a transaction, between two of its round trips, with locks on rows. It
// holds the answer back that the service waits for until it is released.
type Trap struct {
	Caught   chan struct{} // closed when a connection is
	released chan struct{}
}

// Set sets a trap for the next such connection.
func (c *Cutter) Set() *Trap {
	t := &Trap{Caught: make(chan struct{}), released: make(chan struct{})}
	c.trap.Store(t)
	return t
}

// Release lets the answer go, if one is held, and takes the trap away.
func (c *Cutter) Release(t *Trap) {
	c.trap.CompareAndSwap(t, nil)
	close(t.released)
}

// take uses up one wanted cut.
func (c *Cutter) take() bool {
	for {
		n := c.Wanted.Load()
		if n <= 0 {
			return false
		}
		if c.Wanted.CompareAndSwap(n, n-1) {
			c.Done.Add(1)
			return true
		}
	}
}
