package outbox_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/testkit/brokertest"
)

func kept(t *testing.T, db *pgxpool.Pool) (n int) {
	t.Helper()
	const count = `SELECT (SELECT count(*) FROM outbox_kept_0) + (SELECT count(*) FROM outbox_kept_1)`
	if err := db.QueryRow(context.Background(), count).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func execute(t *testing.T, db *pgxpool.Pool, sql string) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func emitAll(t *testing.T, db *pgxpool.Pool, key string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		emit(t, db, "t", key, strconv.Itoa(i))
	}
}

// What Kafka acknowledged and lost is published again, in full, and only that; however the loss shows, and whoever
// leads. It comes before what follows, unless nothing had told that Kafka had failed.
func TestWhatKafkaLostIsPublishedAgain(t *testing.T) {
	for _, test := range []struct {
		name    string
		follow  int  // events that are emitted after the loss
		refused bool // Kafka does not answer from before the loss until they were emitted
		stop    bool // the relay stops before the loss, and another starts after they were emitted
		unseen  bool // nothing tells of it but the offset of the next event
		broken  bool // the database takes nothing back for a while
		others  int  // records that another producer appends to the cut log before the relay can look
	}{
		{name: "nothing follows"},
		{name: "events follow", follow: 2, unseen: true},
		{name: "events wait", follow: 12, refused: true},
		{name: "another relay leads", stop: true},
		{name: "another relay leads and events wait", follow: 12, stop: true},
		{name: "the database takes nothing back", follow: 12, refused: true, broken: true},
		{name: "others write where it was cut", follow: 2, refused: true, others: 1},
		{name: "others write beyond what was acknowledged", follow: 2, refused: true, others: 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			db, k := database(t), newMemory(1)
			metrics := prometheus.NewPedanticRegistry()
			var log said
			first := outbox.Config{Poll: 20 * time.Millisecond}
			second := outbox.Config{Poll: 20 * time.Millisecond, Metric: metrics, Log: log.logger()}
			if !test.stop {
				first = second
			}
			stop := start(t, outbox.NewRelay(db, k, first))
			emitAll(t, db, "k", 0, 10)
			eventually(t, "all are published, and kept", func() bool { return k.length("t")() == 10 && kept(t, db) == 10 })
			if test.others > 0 {
				eventually(t, "the relay knows the leader's epoch", func() bool { return k.asked("t", 0) != broker.NoEpoch })
			}
			if test.stop {
				stop()
			}
			emitted := 10
			if test.refused {
				k.refuse(0, true)
				emitAll(t, db, "k", 10, 11)
				emitted = 11
				eventually(t, "it waits", func() bool { return log.times("events wait") > 0 })
			}
			k.cut("t", 0, 4)
			k.others("t", 0, test.others)
			emitAll(t, db, "k", emitted, 10+test.follow)
			if test.broken {
				execute(t, db, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no space left''; END'`)
				execute(t, db, `CREATE TRIGGER full_disk BEFORE INSERT ON outbox EXECUTE FUNCTION full_disk()`)
			}
			k.refuse(0, false)
			if test.broken {
				eventually(t, "the relay has tried", func() bool { return log.times("lost its database") > 0 })
				eventually(t, "and again", func() bool { return log.times("relay leads") > 3 })
				execute(t, db, `DROP TRIGGER full_disk ON outbox`)
			}
			if test.stop {
				start(t, outbox.NewRelay(db, k, second))
			}
			var want []string
			for i := range 10 + test.follow {
				want = append(want, strconv.Itoa(i))
			}
			var got []string
			eventually(t, "what was lost is published again", func() bool {
				got = slices.Clone(k.values("t")["k"])
				return len(got) >= len(want)
			})
			if test.unseen {
				slices.SortFunc(got, func(a, b string) int { x, _ := strconv.Atoi(a); y, _ := strconv.Atoi(b); return x - y })
			}
			if !slices.Equal(got, want) {
				t.Errorf("published: %v", got)
			}
			// Mended is mended: a cut that has been dealt with is not found again.
			eventually(t, "all are kept again", func() bool { return kept(t, db) == len(want) })
			if n := value(t, metrics, "converge_outbox_republished_total"); n != 6 || log.times("Kafka lost events") != 1 {
				t.Errorf("%v events counted, and %d times logged", n, log.times("Kafka lost events"))
			}
		})
	}
}

// Where nothing is lost, nothing is published twice: across leaders, and past the checks of the logs' ends.
func TestNothingIsPublishedTwiceWhereNothingIsLost(t *testing.T) {
	t.Parallel()
	db, k := database(t), newMemory(3)
	var log said
	published := 0
	for range 3 {
		stop := start(t, outbox.NewRelay(db, k, outbox.Config{Poll: 20 * time.Millisecond, Log: log.logger()}))
		until := time.Now().Add(4 * time.Second) // longer than between two checks
		for ; time.Now().Before(until); published++ {
			emit(t, db, "t", fmt.Sprint("k", published%5), strconv.Itoa(published))
		}
		stop()
	}
	if n := k.length("t")(); n != published || log.times("Kafka lost") > 0 {
		t.Errorf("%d events were published %d times", published, n)
	}
}

// What lies longer ago than events are kept is gone, and the log says that more was lost.
func TestKeptEventsAreForgottenInTime(t *testing.T) {
	t.Parallel()
	db, k := database(t), newMemory(1)
	var out said
	start(t, outbox.NewRelay(db, k, outbox.Config{Poll: 20 * time.Millisecond, Keep: time.Second, Log: out.logger()}))
	emitAll(t, db, "k", 0, 10)
	eventually(t, "they are kept", func() bool { return k.length("t")() == 10 && kept(t, db) > 0 })
	eventually(t, "the tables have taken turns", func() bool { return kept(t, db) == 0 })
	emitAll(t, db, "k", 10, 12)
	eventually(t, "the others are kept", func() bool { return kept(t, db) == 2 })
	k.cut("t", 0, 5)
	eventually(t, "what is kept is published again", func() bool { return slices.Equal(k.values("t")["k"], []string{"0", "1", "2", "3", "4", "10", "11"}) })
	if out.times("5 more were lost") != 1 {
		t.Error("the log does not say that more was lost than is kept")
	}
}

// A topic that was deleted and made anew has lost everything.
func TestTopicMadeAnewGetsBackWhatIsKept(t *testing.T) {
	t.Parallel()
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		db, cl, topic := database(t), client(t, c), c.Topic(t, 2)
		start(t, outbox.NewRelay(db, cl, outbox.Config{Poll: 50 * time.Millisecond}))
		for i := range 20 {
			emit(t, db, topic, fmt.Sprint("k", i%4), strconv.Itoa(i))
		}
		eventually(t, "they are kept", func() bool { return kept(t, db) == 20 })
		c.Remake(t, topic, 2)
		eventually(t, "they are published again", func() bool {
			got := read(t, cl, topic)
			return len(got["k0"])+len(got["k1"])+len(got["k2"])+len(got["k3"]) == 20
		})
	})
}
