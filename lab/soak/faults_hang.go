package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// blackhole drops every packet to and from a database, without a reset. Connections that were open stay dead when it is
// over; new ones get through.
func blackhole(ctx context.Context, c *calamity, on string, _ *rand.Rand) (string, error) {
	gate := c.world.gates[on]
	n := gate.Swallow()
	defer gate.Spit()
	if n == 0 {
		return "", errors.New("there was no connection")
	}
	pause(ctx, 20*time.Second)
	return fmt.Sprintf("%d connections died", n), nil
}

// frozen is how long an instance is frozen inside a transaction.
const frozen = 20 * time.Second

// freeze freezes an instance in the middle of a transaction, with the locks that it holds, while another instance is
// there to take over its work. Clients are sent to the other, as whoever asks for readiness would send them.
func freeze(ctx context.Context, c *calamity, on string, _ *rand.Rand) (_ string, err error) {
	w, i := c.world, c.world.first(on)
	successor, err := w.joinBeside(ctx, on)
	defer func() { err = errors.Join(err, w.leave(successor)) }()
	if err != nil {
		return "", err
	}
	w.turnAway(on, true)
	defer w.turnAway(on, false)
	if err := w.freezeLocked(ctx, on, i); err != nil {
		return "", errors.Join(err, w.ready(ctx, i))
	}
	pause(ctx, frozen/10)
	query, _, err := w.locked(ctx, on)
	pause(ctx, frozen*8/10)
	_, waiting, waitErr := w.locked(ctx, on)
	left, idleErr := w.idle(ctx, on, frozen/2)
	pause(ctx, frozen/10)
	i.Signal(sigCont)
	note := fmt.Sprintf("after %q; %s later %d held their locks, and %d waited for some", strings.Join(strings.Fields(query), " "), frozen*9/10, left, waiting)
	return note, errors.Join(err, waitErr, idleErr, w.ready(ctx, i))
}

// freezeLocked stops an instance in a transaction that holds locks. After an error it runs.
func (w *world) freezeLocked(ctx context.Context, service string, i *instance) error {
	cutter := w.gates[service].Cutter
	for last := time.After(15 * time.Second); ; {
		t := cutter.Set()
		select {
		case <-t.Caught:
			i.Signal(sigStop)
		case <-last:
			cutter.Release(t)
			return errors.New("no transaction was caught with locks")
		case <-ctx.Done():
			cutter.Release(t)
			return ctx.Err()
		}
		pause(ctx, 100*time.Millisecond)
		held, err := w.idle(ctx, service, 50*time.Millisecond)
		cutter.Release(t)
		if err == nil && held > 0 {
			return nil
		}
		i.Signal(sigCont) // it had found nothing to lock
		if err != nil {
			return err
		}
	}
}

const idleSQL = `SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state = 'idle in transaction' AND backend_xid IS NOT NULL
	AND now() - state_change > make_interval(secs => $2)`

// What was asked in the transaction last, and how many wait for locks.
const heldSQL = `SELECT coalesce(left(min(query) FILTER (WHERE state = 'idle in transaction' AND backend_xid IS NOT NULL), 100), ''),
	count(*) FILTER (WHERE wait_event_type = 'Lock') FROM pg_stat_activity WHERE datname = $1`

func (w *world) locked(ctx context.Context, service string) (query string, waiting int, err error) {
	err = w.pools[service].QueryRow(ctx, heldSQL, service).Scan(&query, &waiting)
	return query, waiting, err
}

// idle is how many transactions in a service's database hold locks and have waited for their clients for longer than
// that.
func (w *world) idle(ctx context.Context, service string, longer time.Duration) (n int, err error) {
	err = w.pools[service].QueryRow(ctx, idleSQL, service, longer.Seconds()).Scan(&n)
	return n, err
}

// slowClients are the connections that each send a byte a second.
const slowClients = 200

// slow holds connections to a service open that send a byte a second: in headers or bodies, to paths that there are and
// that there are not. Then the service is stopped, and has to be as quick as ever.
func slow(ctx context.Context, c *calamity, on string, _ *rand.Rand) (string, error) {
	i := c.world.first(on)
	crawl, end := context.WithCancel(ctx)
	var clients sync.WaitGroup
	var opened, dropped atomic.Int64
	defer clients.Wait()
	defer end()
	for n := range slowClients {
		clients.Go(func() {
			for crawl.Err() == nil {
				if err := drip(crawl, i.Addr, n, &opened); err != nil && crawl.Err() == nil {
					dropped.Add(1)
					pause(crawl, time.Second)
				}
			}
		})
	}
	pause(ctx, 15*time.Second)
	note := fmt.Sprintf("%d connections, of which the service ended %d", opened.Load(), dropped.Load())
	began := time.Now()
	err := c.world.stop(i)
	note += fmt.Sprintf(", stopped in %.1f s", time.Since(began).Seconds())
	end()
	return note, errors.Join(err, c.world.restart(ctx, i))
}

// drip is one such connection, until the service ends it or ctx does.
func drip(ctx context.Context, addr string, n int, opened *atomic.Int64) error {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	opened.Add(1)
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	defer conn.Close() //nolint:errcheck // nothing of it matters
	path := []string{"/orders", "/healthz", "/nothing", "/"}[n%4]
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n", path, addr)
	if n%2 == 0 {
		head += "\r\n" // its body drips, and of the others the headers
	}
	if _, err := io.WriteString(conn, head); err != nil {
		return err
	}
	gone := make(chan error, 1)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer func() { _ = conn.SetDeadline(time.Unix(1, 0)) }()
	reader.Go(func() {
		_, err := io.Copy(io.Discard, conn)
		if err == nil {
			err = io.EOF
		}
		gone <- err
	})
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return err
		case <-tick.C:
			if _, err := io.WriteString(conn, "x"); err != nil {
				return err
			}
		}
	}
}
