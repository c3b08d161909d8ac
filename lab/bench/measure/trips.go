package measure

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/lab/bench/testbed"
)

// dbConn is one of a service to its database, as the server tells it from the others.
type dbConn struct {
	database string
	port     uint16
}

// connectionsSQL leaves out the bench's own.
const connectionsSQL = `SELECT datname, client_port FROM pg_stat_activity WHERE application_name <> '` + testbed.ApplicationName + `' AND datname <> 'postgres' AND client_port > 0`

// trips counts what every connection of the services has sent so far: one flight of requests, and so one round trip,
// for each write. It costs the services nothing, as the kernel has counted already.
func trips(ctx context.Context, s testbed.Servers) (map[dbConn]uint32, error) {
	out := map[dbConn]uint32{}
	for _, srv := range s.Postgres {
		segments, err := dataSegments(srv.Addr.Port())
		if err != nil {
			return nil, err
		}
		err = s.One(ctx, srv, func(conn *pgx.Conn) error {
			rows, _ := conn.Query(ctx, connectionsSQL) // the error surfaces in the collector
			var database string
			var port int32
			_, err := pgx.ForEachRow(rows, []any{&database, &port}, func() error {
				out[dbConn{database, uint16(port)}] = segments[uint16(port)]
				return nil
			})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// tripsSince adds up what was sent after an earlier look. What a connection sent that has ended since is not known.
func tripsSince(after, before map[dbConn]uint32) int64 {
	var sum int64
	for c, n := range after {
		sum += int64(n) - int64(min(n, before[c]))
	}
	return sum
}
