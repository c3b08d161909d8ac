package outbox

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Manual is a leading relay that takes its steps when it is told to, and not by itself: for simulations, which decide
// when events leave and when the relay crashes. It reads, publishes and deletes as [Relay.Run] does, from the table
// alone: nothing is handed over to it, it asks for no lock, and nobody watches for what Kafka loses. One goroutine uses
// it at a time.
type Manual struct {
	relay  *Relay
	conn   *pgx.Conn
	pump   *pump
	beside sync.WaitGroup
}

// Manual takes a connection out of the relay's pool, until [Manual.Close].
func (r *Relay) Manual(ctx context.Context) (*Manual, error) {
	conn, err := r.detached(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.exec(ctx, conn, setUpSQL); err != nil {
		closeConn(conn)
		return nil, err
	}
	m := &Manual{relay: r, conn: conn}
	m.Crash()
	return m, nil
}

// Step takes what the last step has published out of the table, and publishes the next events, at most so many.
func (m *Manual) Step(ctx context.Context, limit int) error {
	m.relay.cfg.Batch = limit
	_, _, err := m.pump.step(ctx, true, &m.beside)
	return err
}

// Crash has the relay forget what it knows: what the last step has published is still in the table, and is published
// again.
func (m *Manual) Crash() { m.pump = newPump(m.relay, m.conn) }

// Close gives the connection back to the server.
func (m *Manual) Close() {
	m.beside.Wait()
	closeConn(m.conn)
}
