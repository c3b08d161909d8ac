package sagatest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// A loyalty service: who buys gets points, who gives back loses them again, and the points are told.
type (
	bought struct {
		Purchase string `json:"purchase"`
		User     string `json:"user"`
		Points   int64  `json:"points"`
	}
	returned struct {
		Purchase string `json:"purchase"`
	}
	granted struct {
		User   string `json:"user"`
		Points int64  `json:"points"`
	}
)

var (
	boughtTopic   = saga.NewTopic[bought]("shop.bought")
	returnedTopic = saga.NewTopic[returned]("shop.returned")
	grantedTopic  = saga.NewTopic[granted]("loyalty.granted")
)

const loyaltySchema = `
CREATE TABLE points (member text PRIMARY KEY, total bigint NOT NULL);
INSERT INTO points VALUES ('anna', 1000), ('bert', 1000);
CREATE TABLE purchases (id text PRIMARY KEY, member text NOT NULL, points bigint NOT NULL);
CREATE TABLE told (id bigint GENERATED ALWAYS AS IDENTITY, points bigint NOT NULL)`

// loyalty is the service as it should be. grant and takeBack can be replaced by broken ones.
type loyalty struct {
	grant    func(ctx context.Context, tx pgx.Tx, m saga.Msg[bought]) error
	takeBack func(ctx context.Context, tx pgx.Tx, m saga.Msg[returned]) error
	schema   string
}

func (l loyalty) services(t testing.TB) []sagatest.Simulated {
	db := pgtest.New(t, "loyalty"+l.schema, func(ctx context.Context, pool *pgxpool.Pool) error {
		if err := sagatest.Migrate()(ctx, pool); err != nil {
			return err
		}
		_, err := pool.Exec(ctx, loyaltySchema+l.schema)
		return err
	})
	if l.grant == nil {
		l.grant = grant
	}
	if l.takeBack == nil {
		l.takeBack = takeBack
	}
	return []sagatest.Simulated{{DB: db, Service: saga.Service{Name: "loyalty", Routes: []saga.Route{
		saga.On(boughtTopic, func(ctx context.Context, tx pgx.Tx, m saga.Msg[bought]) ([]saga.Out, error) {
			if err := l.grant(ctx, tx, m); err != nil {
				return nil, err
			}
			return saga.Emit(m, grantedTopic, granted{m.Data.User, m.Data.Points}), nil
		}, grantedTopic),
		saga.On(returnedTopic, func(ctx context.Context, tx pgx.Tx, m saga.Msg[returned]) ([]saga.Out, error) {
			return nil, l.takeBack(ctx, tx, m)
		}).Named("returns"),
		saga.On(grantedTopic, func(ctx context.Context, tx pgx.Tx, m saga.Msg[granted]) ([]saga.Out, error) {
			_, err := tx.Exec(ctx, `INSERT INTO told (points) VALUES ($1)`, m.Data.Points)
			return nil, err
		}).Named("teller"),
	}}}}
}

// grant gives the points, unless the purchase was given back before it was heard of.
func grant(ctx context.Context, tx pgx.Tx, m saga.Msg[bought]) error {
	tag, err := tx.Exec(ctx, `INSERT INTO purchases VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, m.Data.Purchase, m.Data.User, m.Data.Points)
	if err != nil || tag.RowsAffected() == 0 {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE points SET total = total + $2 WHERE member = $1`, m.Data.User, m.Data.Points)
	return err
}

// takeBack takes them back, or leaves a mark that there is nothing to give.
func takeBack(ctx context.Context, tx pgx.Tx, m saga.Msg[returned]) error {
	tag, err := tx.Exec(ctx, `INSERT INTO purchases VALUES ($1, '', 0) ON CONFLICT DO NOTHING`, m.Data.Purchase)
	if err != nil || tag.RowsAffected() > 0 {
		return err
	}
	_, err = tx.Exec(ctx, `WITH gone AS (UPDATE purchases SET points = 0 FROM (SELECT * FROM purchases WHERE id = $1 FOR UPDATE) AS was
		WHERE purchases.id = was.id RETURNING was.member, was.points)
		UPDATE points SET total = total - gone.points FROM gone WHERE points.member = gone.member`, m.Data.Purchase)
	return err
}

// purchases are some, some of which are given back.
func purchases(t *testing.T) func(r *rand.Rand) []sagatest.Input {
	return func(r *rand.Rand) []sagatest.Input {
		var inputs []sagatest.Input
		for i := range 1 + r.IntN(4) {
			id := fmt.Sprintf("p-%d", i+1)
			inputs = append(inputs, sagatest.Message(t, boughtTopic, id, bought{id, []string{"anna", "bert"}[r.IntN(2)], 1 + r.Int64N(100)}))
			if r.IntN(3) == 0 {
				inputs = append(inputs, sagatest.Message(t, returnedTopic, id, returned{id}))
			}
		}
		return inputs
	}
}

// kept holds the sum of all points against the purchases that were not given back, and against what was told of all.
func kept(ctx context.Context, w *sagatest.World) error {
	var all, sum int64
	points := map[string]int64{}
	for _, in := range w.Done() {
		switch about := in.About.(type) {
		case bought:
			points[about.Purchase] += about.Points
			all += about.Points
		case returned:
			delete(points, about.Purchase)
		}
	}
	for _, n := range points {
		sum += n
	}
	if err := sagatest.Same(ctx, w.DB("loyalty"), 2000+sum, `SELECT sum(total)::bigint FROM points`); err != nil {
		return err
	}
	return sagatest.Same(ctx, w.DB("loyalty"), all, `SELECT coalesce(sum(points), 0)::bigint FROM told`)
}

func TestConverges(t *testing.T) {
	t.Parallel()
	sagatest.Converges(t, loyalty{}.services, purchases(t), kept)
}

// Each of these handlers passes a test that delivers messages once and in order.
func TestDiverges(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		broken loyalty
		most   int    // events that the shortened history may have
		tells  string // one of its events has this
	}{
		"a return that comes before its purchase is forgotten": {
			loyalty{takeBack: func(ctx context.Context, tx pgx.Tx, m saga.Msg[returned]) error {
				_, err := tx.Exec(ctx, `WITH gone AS (DELETE FROM purchases WHERE id = $1 RETURNING member, points)
					UPDATE points SET total = total - gone.points FROM gone WHERE points.member = gone.member`, m.Data.Purchase)
				return err
			}}, 5, "loyalty.returns handles shop.returned",
		},
		"what was read is written without a lock": {
			loyalty{grant: func(ctx context.Context, tx pgx.Tx, m saga.Msg[bought]) error {
				var total int64
				if err := tx.QueryRow(ctx, `SELECT total FROM points WHERE member = $1`, m.Data.User).Scan(&total); err != nil {
					return err
				}
				tag, err := tx.Exec(ctx, `INSERT INTO purchases VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, m.Data.Purchase, m.Data.User, m.Data.Points)
				if err != nil || tag.RowsAffected() == 0 {
					return err
				}
				_, err = tx.Exec(ctx, `UPDATE points SET total = $2 WHERE member = $1`, m.Data.User, total+m.Data.Points)
				return err
			}}, 5, "while",
		},
		"the inbox forgets": {
			loyalty{schema: `;
				CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
				CREATE TRIGGER forget BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION forget()`}, 5, "",
		},
		"a handler fails for good": {
			loyalty{takeBack: func(_ context.Context, _ pgx.Tx, m saga.Msg[returned]) error {
				return saga.Permanent(fmt.Errorf("no idea of %s", m.Data.Purchase))
			}}, 0, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := sagatest.Diverges(t, test.broken.services, purchases(t), kept)
			t.Log(f)
			if len(f.Events) > test.most || len(f.Inputs) > 2 {
				t.Errorf("%d events and %d inputs, want at most %d and 2", len(f.Events), len(f.Inputs), test.most)
			}
			if !strings.Contains(strings.Join(append(f.Events, f.Rest...), "\n"), test.tells) {
				t.Errorf("no event tells of %q", test.tells)
			}
		})
	}
}

// An effect outside the transaction is there twice when the transaction is rolled back and done again.
func TestDivergesWhereAnEffectIsNotOfTheTransaction(t *testing.T) {
	t.Parallel()
	services := func(t testing.TB) []sagatest.Simulated {
		l := loyalty{}
		var pool *pgxpool.Pool
		l.grant = func(ctx context.Context, _ pgx.Tx, m saga.Msg[bought]) error {
			_, err := pool.Exec(ctx, `UPDATE points SET total = total + $2 WHERE member = $1`, m.Data.User, m.Data.Points)
			return err
		}
		all := l.services(t)
		pool = all[0].DB
		return all
	}
	onlyBought := func(r *rand.Rand) []sagatest.Input {
		return []sagatest.Input{sagatest.Message(t, boughtTopic, "p-1", bought{"p-1", "anna", 1 + r.Int64N(9)})}
	}
	f := sagatest.Diverges(t, services, onlyBought, kept)
	t.Log(f)
	if len(f.Events) > 2 {
		t.Errorf("%d events, want the purchase and what goes wrong with it", len(f.Events))
	}
}
