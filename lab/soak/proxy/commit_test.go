package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func frame(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

// Messages are found wherever reads cut the stream.
func TestFramesAcrossReads(t *testing.T) {
	stream := binary.BigEndian.AppendUint32(nil, 8)
	stream = binary.BigEndian.AppendUint32(stream, 80877103) // a request for encryption
	stream = append(binary.BigEndian.AppendUint32(stream, 12), "\x00\x03\x00\x00user"...)
	stream = append(stream, frame('Q', "begin\x00")...)
	stream = append(stream, frame('S', "")...)
	stream = append(stream, frame('P', "name\x00COMMIT\x00\x00\x00")...)
	want := []string{"Q begin\x00", "S ", "P name\x00COMMIT\x00\x00\x00"}
	for size := 1; size <= len(stream); size++ {
		var got []string
		f := frames{startup: true, on: func(kind byte, body []byte) { got = append(got, fmt.Sprintf("%c %s", kind, body)) }}
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			f.feed(rest[:n])
			rest = rest[n:]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("reads of %d bytes (-want +got):\n%s", size, diff)
		}
	}
}

func TestKindOf(t *testing.T) {
	for text, want := range map[string]statement{
		"commit": commits, "  COMMIT;": commits, "End": commits, "insert into t values (1); commit": commits,
		"begin": begins, "START TRANSACTION ISOLATION LEVEL SERIALIZABLE": begins, "rollback": rollsBack,
		"INSERT INTO t VALUES (1)": writes, "with x as (delete from t returning 1) select 1": writes,
		"SET synchronous_commit = off": reads, "select 1": reads, "committed": reads, "": reads,
	} {
		if got := kindOf([]byte(text)); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

// However a transaction is committed, a cut commit has happened and its client does not know.
func TestCutCommitIsDone(t *testing.T) {
	db := pgtest.New(t, "cut", nil)
	if _, err := db.Exec(t.Context(), `CREATE TABLE t (n int)`); err != nil {
		t.Fatal(err)
	}
	cfg := db.Config().ConnConfig
	cutter := &Cutter{}
	p, err := New(t.Context(), fmt.Sprintf("%s:%d", cfg.Host, cfg.Port), cutter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	behind := cfg.Copy()
	if _, err := fmt.Sscanf(p.Addr, "127.0.0.1:%d", &behind.Port); err != nil {
		t.Fatal(err)
	}
	behind.Host, behind.Fallbacks = "127.0.0.1", nil

	const insert = `INSERT INTO t VALUES ($1)`
	for n, commit := range []func(context.Context, *pgx.Conn, int) error{
		func(ctx context.Context, c *pgx.Conn, n int) error { // a text of its own
			return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, insert, n); return err })
		},
		func(ctx context.Context, c *pgx.Conn, n int) error { // in one round trip with statements
			return pg.InTx(ctx, c, func(tx pgx.Tx) error {
				var b pgx.Batch
				b.Queue(insert, n)
				return pg.Defer(ctx, tx, &b)
			})
		},
		func(ctx context.Context, c *pgx.Conn, n int) error { // no transaction but the batch
			var b pgx.Batch
			b.Queue(insert, n)
			return c.SendBatch(ctx, &b).Close()
		},
		func(ctx context.Context, c *pgx.Conn, n int) error { _, err := c.Exec(ctx, insert, n); return err },
	} {
		conn, err := pgx.ConnectConfig(t.Context(), behind)
		if err != nil {
			t.Fatal(err)
		}
		if err := commit(t.Context(), conn, 100+n); err != nil { // statements are prepared now
			t.Fatalf("way %d uncut: %v", n, err)
		}
		cutter.Wanted.Store(1)
		err = commit(t.Context(), conn, n)
		if err == nil || !pg.Transient(err) {
			t.Errorf("way %d: %v, want an error that is transient", n, err)
		}
		var stored int
		if err := errors.Join(db.QueryRow(t.Context(), `SELECT count(*) FROM t WHERE n = $1`, n).Scan(&stored), conn.Close(t.Context())); err != nil || stored != 1 {
			t.Errorf("way %d stored %d rows, %v; want 1", n, stored, err)
		}
	}
	if n := cutter.Done.Load(); n != 4 {
		t.Errorf("%d commits cut, want 4", n)
	}
}

// A connection is caught inside a transaction that has locked rows, with its locks, and goes on when it is released.
func TestTrap(t *testing.T) {
	db := pgtest.New(t, "trap", nil)
	if _, err := db.Exec(t.Context(), `CREATE TABLE rows AS SELECT 1 AS n`); err != nil {
		t.Fatal(err)
	}
	cfg := db.Config().ConnConfig
	cutter := &Cutter{}
	p, err := New(t.Context(), fmt.Sprintf("%s:%d", cfg.Host, cfg.Port), cutter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	behind := cfg.Copy()
	if _, err := fmt.Sscanf(p.Addr, "127.0.0.1:%d", &behind.Port); err != nil {
		t.Fatal(err)
	}
	behind.Host, behind.Fallbacks = "127.0.0.1", nil
	conn, err := pgx.ConnectConfig(t.Context(), behind)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	transact := func(sql string) error {
		return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql)
			return errors.Join(err, tx.QueryRow(t.Context(), `SELECT 1`).Scan(new(int)))
		})
	}
	trap := cutter.Set()
	if err := transact(`CREATE TABLE other (n int)`); err != nil {
		t.Fatal(err)
	}
	select {
	case <-trap.Caught:
		t.Fatal("a transaction that locks no rows is caught")
	default:
	}
	done := make(chan error, 1)
	go func() { done <- transact(`SELECT n FROM rows FOR UPDATE`) }()
	<-trap.Caught
	var idle int
	const sql = `SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = 'rows'::regclass AND mode = 'RowShareLock' AND backend_xid IS NOT NULL AND state = 'idle in transaction'`
	if err := db.QueryRow(t.Context(), sql).Scan(&idle); err != nil || idle != 1 {
		t.Errorf("%d transactions hold locks and are idle, %v; want 1", idle, err)
	}
	cutter.Release(trap)
	if err := <-done; err != nil {
		t.Errorf("released, it says %v", err)
	}
}
