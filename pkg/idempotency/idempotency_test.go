package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// setup is a database with a table of effects, in which each run of a request leaves a row.
func setup(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "idempotency", func(ctx context.Context, db *pgxpool.Pool) error {
		if err := pg.Migrate(ctx, db, idempotency.Migration()); err != nil {
			return err
		}
		_, err := db.Exec(ctx, `CREATE TABLE effects (request text NOT NULL)`)
		return err
	})
}

func key(name string) idempotency.Key {
	return idempotency.Key{Scope: "u1", Key: name, Fingerprint: idempotency.Fingerprint([]byte("body of " + name))}
}

var created = idempotency.Result{
	Status: 202, Header: map[string]string{"Location": "/orders/1"}, Body: []byte("{\"id\" : 1}\n\x00"),
}

type work = func(context.Context, pgx.Tx) (idempotency.Result, error)

// working leaves an effect and then ends so.
func working(result idempotency.Result, err error) work {
	return func(ctx context.Context, tx pgx.Tx) (idempotency.Result, error) {
		if _, err := tx.Exec(ctx, `INSERT INTO effects VALUES ('a')`); err != nil {
			return idempotency.Result{}, err
		}
		return result, err
	}
}

// do is Do in a transaction of its own, which must not wait for another for ever.
func do(ctx context.Context, db *pgxpool.Pool, keys idempotency.Keys, k idempotency.Key, fn work) (result idempotency.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		result, err = keys.Do(ctx, tx, k, fn)
		return err
	})
	return result, err
}

func effects(t *testing.T, db *pgxpool.Pool, want int) {
	t.Helper()
	var got int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM effects`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%d effects, want %d", got, want)
	}
}

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t))
}

func TestDoRunsOnce(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	for range 3 {
		got, err := do(t.Context(), db, keys, key("k"), working(created, nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(created, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
	}
	effects(t, db, 1)

	for name, other := range map[string]idempotency.Key{
		"another key":   key("l"),
		"another scope": {Scope: "u2", Key: "k", Fingerprint: key("k").Fingerprint},
	} {
		if _, err := do(t.Context(), db, keys, other, working(created, nil)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	effects(t, db, 3)
}

func TestDoKeepsARefusalAndNothingElseOfIt(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	want := idempotency.Result{Err: &idempotency.Error{Code: "insufficient-balance", Message: "u1 has 5 EUR of 7"}}
	refuse := idempotency.Refuse("insufficient-balance", errors.New("u1 has 5 EUR of 7"))
	for _, fn := range []work{
		working(idempotency.Result{}, fmt.Errorf("charge: %w", refuse)),
		working(created, nil), // it could be paid now, but the answer stands
	} {
		got, err := do(t.Context(), db, keys, key("k"), fn)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
	}
	effects(t, db, 0)
}

func TestDoForgetsAFault(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	lost := errors.New("connection lost")
	if _, err := do(t.Context(), db, keys, key("k"), working(created, lost)); !errors.Is(err, lost) {
		t.Errorf("error is %v, want the fault", err)
	}
	effects(t, db, 0)
	if _, err := do(t.Context(), db, keys, key("k"), working(created, nil)); err != nil {
		t.Errorf("trying again: %v", err)
	}
	effects(t, db, 1)
}

func TestDoRefusesAnotherRequestUnderTheKey(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	if _, err := do(t.Context(), db, keys, key("k"), working(created, nil)); err != nil {
		t.Fatal(err)
	}
	other := key("k")
	other.Fingerprint = idempotency.Fingerprint([]byte("other body"))
	if _, err := do(t.Context(), db, keys, other, working(created, nil)); !errors.Is(err, idempotency.ErrMismatch) {
		t.Errorf("error is %v, want ErrMismatch", err)
	}
	effects(t, db, 1)
}

// Many keys at once: what is answered stays so, what is new is worked on and stored, and what has no answer yet is
// asked again.
func TestDoAllWorksOnWhatIsNew(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	store(t, db, keys, idempotency.Stored{Key: key("old"), Result: created})
	numbered := func(status int) *idempotency.Result { return &idempotency.Result{Status: status, Body: []byte("{}")} }
	doAll := func(fn func([]int) ([]*idempotency.Result, error), asked ...idempotency.Key) (results []*idempotency.Result, err error) {
		err = pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
			results, err = keys.DoAll(t.Context(), tx, asked, fn)
			return err
		})
		return results, err
	}
	for _, step := range []struct {
		fresh []int
		done  []*idempotency.Result
		want  []*idempotency.Result
	}{
		{[]int{0, 2}, []*idempotency.Result{numbered(1), nil}, []*idempotency.Result{numbered(1), &created, nil}},
		{[]int{2}, []*idempotency.Result{numbered(2)}, []*idempotency.Result{numbered(1), &created, numbered(2)}},
		{nil, nil, []*idempotency.Result{numbered(1), &created, numbered(2)}},
	} {
		var asked []int
		got, err := doAll(func(fresh []int) ([]*idempotency.Result, error) { asked = fresh; return step.done, nil }, key("a"), key("old"), key("b"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, got); diff != "" || !cmp.Equal(step.fresh, asked) {
			t.Errorf("worked on %v, want %v; results (-want +got):\n%s", asked, step.fresh, diff)
		}
	}

	other, lost := key("old"), errors.New("connection lost")
	other.Fingerprint[0]++
	begin(t, db, keys, key("busy"))
	for name, tt := range map[string]struct {
		keys []idempotency.Key
		want error
	}{
		"a fault":               {[]idempotency.Key{key("c"), key("old")}, lost},
		"another request":       {[]idempotency.Key{key("c"), other}, idempotency.ErrMismatch},
		"the same key twice":    {[]idempotency.Key{key("c"), key("c")}, idempotency.ErrInProgress},
		"one that is worked on": {[]idempotency.Key{key("c"), key("busy")}, idempotency.ErrInProgress},
	} {
		if _, err := doAll(func([]int) ([]*idempotency.Result, error) { return nil, lost }, tt.keys...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if c := claim(t, db, keys, key("c")); c[0].State != idempotency.New {
		t.Errorf("a key whose work failed is %s", c[0].State)
	}
}

// begin starts a transaction that has done the work of k, and leaves it open.
func begin(t *testing.T, db *pgxpool.Pool, keys idempotency.Keys, k idempotency.Key) pgx.Tx {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	if _, err := keys.Do(t.Context(), tx, k, working(created, nil)); err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestKeyIsInProgressUntilItsTransactionEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(pgx.Tx) error{
		"commit":   func(tx pgx.Tx) error { return tx.Commit(t.Context()) },
		"rollback": func(tx pgx.Tx) error { return tx.Rollback(t.Context()) },
		"crash":    func(tx pgx.Tx) error { return tx.Conn().PgConn().Conn().Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, keys := setup(t), idempotency.Keys{}
			tx := begin(t, db, keys, key("k"))
			if _, err := do(t.Context(), db, keys, key("k"), working(created, nil)); !errors.Is(err, idempotency.ErrInProgress) {
				t.Errorf("error is %v, want ErrInProgress", err)
			}
			if err := end(tx); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				_, err := do(t.Context(), db, keys, key("k"), working(created, nil))
				return err
			})
			effects(t, db, 1) // the first's if it was committed, else the second's
		})
	}
}

// A stored answer needs no lock: two who ask for it at the same time both get it.
func TestReplaysDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	if _, err := do(t.Context(), db, keys, key("k"), working(created, nil)); err != nil {
		t.Fatal(err)
	}
	begin(t, db, keys, key("k"))
	if _, err := do(t.Context(), db, keys, key("k"), working(created, nil)); err != nil {
		t.Errorf("while another transaction replays: %v", err)
	}
	effects(t, db, 1)
}

func TestWaitForTheFirst(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{Wait: true}
	first := begin(t, db, keys, key("k"))
	second := make(chan error, 1)
	go func() {
		got, err := do(t.Context(), db, keys, key("k"), working(idempotency.Result{Status: 500}, nil))
		if err == nil && got.Status != created.Status {
			err = fmt.Errorf("got %v, want the first's result", got)
		}
		second <- err
	}()
	eventually(t, func() error {
		var waiting int
		err := db.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
			WHERE NOT granted AND locktype = 'advisory' AND datname = current_database()`).Scan(&waiting)
		if err == nil && waiting == 0 {
			err = errors.New("the second does not wait")
		}
		return err
	})
	if err := first.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	effects(t, db, 1)
}

func eventually(t *testing.T, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestFingerprintKeepsPartsApart(t *testing.T) {
	t.Parallel()
	parts := func(texts ...string) [32]byte {
		raw := make([][]byte, len(texts))
		for i, text := range texts {
			raw[i] = []byte(text)
		}
		return idempotency.Fingerprint(raw...)
	}
	if parts("a", "bc") == parts("ab", "c") || parts("a") == parts("a", "") || parts("a") == parts("b") {
		t.Error("different requests have the same fingerprint")
	}
	if again := parts("a", "bc"); again != parts("a", "bc") {
		t.Error("the same request has different fingerprints")
	}
}
