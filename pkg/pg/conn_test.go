package pg_test

import (
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// A client that goes silent within a transaction, as a frozen process does, gives its locks back within the bound.
func TestLocksOfASilentClientAreReleased(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "t", table)
	if _, err := db.Exec(t.Context(), `INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	frozen, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Rollback(t.Context()) //nolint:errcheck // the server has ended it
	if _, err := frozen.Exec(t.Context(), `UPDATE t SET n = 2`); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SET LOCAL lock_timeout = '60s'`)
		if err == nil {
			_, err = tx.Exec(t.Context(), `UPDATE t SET n = 3`)
		}
		return err
	})
	if err != nil {
		t.Fatalf("the row was locked for %v: %v", time.Since(began), err)
	}
	if _, err := frozen.Exec(t.Context(), `SELECT 1`); err == nil || !pg.Transient(err) {
		t.Errorf("the silent client's next statement: %v; want a fault that passes", err)
	}
}

// Both ends of each connection give up one that has gone; a URL may say otherwise.
func TestConnectionsNoticeThatThePeerIsGone(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	for _, test := range []struct {
		name, params                string
		tcp, idle, inTransactionFor string
	}{
		{"by default", "", "10000", "4", "10s"},
		{"as the URL says", "&tcp_user_timeout=3000&tcp_keepalives_idle=7&idle_in_transaction_session_timeout=0", "3000", "7", "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := url
			if !strings.Contains(at, "?") {
				at += "?"
			}
			db, err := pg.Open(t.Context(), at+test.params)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(db.Close)
			var tcp, idle, inTransaction string
			err = db.QueryRow(t.Context(), `SELECT current_setting('tcp_user_timeout'), current_setting('tcp_keepalives_idle'),
				current_setting('idle_in_transaction_session_timeout')`).Scan(&tcp, &idle, &inTransaction)
			if err != nil {
				t.Fatal(err)
			}
			if tcp != test.tcp || idle != test.idle || inTransaction != test.inTransactionFor {
				t.Errorf("the server has %s, %s, %s; want %s, %s, %s", tcp, idle, inTransaction, test.tcp, test.idle, test.inTransactionFor)
			}
			checkSocket(t, db)
		})
	}
}

// checkSocket looks at what the kernel was told about the client's end.
func checkSocket(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	tcp, ok := conn.Conn().PgConn().Conn().(*net.TCPConn)
	if !ok {
		t.Fatalf("the connection is a %T", conn.Conn().PgConn().Conn())
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][3]int{ // level, option, value
		"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {syscall.IPPROTO_TCP, 4, 4},
		"TCP_KEEPINTVL":    {syscall.IPPROTO_TCP, 5, 2},
		"TCP_KEEPCNT":      {syscall.IPPROTO_TCP, 6, 3},
		"TCP_USER_TIMEOUT": {syscall.IPPROTO_TCP, 18, 10_000},
	}
	if err := raw.Control(func(fd uintptr) {
		for name, o := range want {
			if got, err := syscall.GetsockoptInt(int(fd), o[0], o[1]); err != nil || got != o[2] {
				t.Errorf("%s is %d (%v), want %d", name, got, err, o[2])
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}
