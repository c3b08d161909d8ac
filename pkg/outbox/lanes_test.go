package outbox_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// keysOf returns a key of each of so many partitions.
func keysOf(partitions int) []string {
	keys := make([]string, partitions)
	for i, left := 0, partitions; left > 0; i++ {
		key := fmt.Sprint("k", i)
		if p := broker.PartitionOf([]byte(key), partitions); keys[p] == "" {
			keys[p] = key
			left--
		}
	}
	return keys
}

// Partitions refuse for a while and take again, at random, while events come by all ways: nothing is lost or doubled,
// each key keeps its order, and a partition that takes events gets its own at once.
func TestPartitionsRestAlone(t *testing.T) {
	const partitions = 4
	keys := keysOf(partitions)
	db := keyed(t, 100)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		topic := fmt.Sprint("t", round)
		k := newMemory(partitions)
		r := outbox.NewRelay(db, k, outbox.Config{
			Batch: rapid.IntRange(1, 20).Draw(rt, "batch"), Poll: 20 * time.Millisecond, Retry: 60 * time.Millisecond, Keep: -1,
		})
		stop := start(t, r)
		defer stop()
		next := map[string]int{}
		refused := map[int]bool{}
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			p := rapid.IntRange(0, partitions-1).Draw(rt, "partition")
			switch rapid.SampledFrom([]string{"hand", "hand", "emit", "refuse", "take", "await"}).Draw(rt, "step") {
			case "hand":
				handValue(t, db, r, topic, keys[p], strconv.Itoa(next[keys[p]]))
				next[keys[p]]++
			case "emit": // and nobody hands it over
				emit(t, db, topic, keys[p], strconv.Itoa(next[keys[p]]))
				next[keys[p]]++
				r.Wake()
			case "refuse":
				refused[p] = true
				k.refuse(p, true)
			case "take":
				refused[p] = false
				k.refuse(p, false)
			case "await":
				if n := next[keys[p]]; n > 0 && !refused[p] {
					eventually(t, "an event of a partition that takes it, beside those that do not", k.has(topic, keys[p], strconv.Itoa(n-1)))
				}
			}
		}
		for p := range partitions {
			k.refuse(p, false)
		}
		eventually(t, "the outbox is empty", empty(t, db))
		for key, n := range next {
			if got := k.values(topic)[key]; !slices.Equal(got, counted(n)) {
				rt.Fatalf("%s came as %v; want 0 to %d, each once and in order", key, got, n-1)
			}
		}
	})
}

// handValue is hand with a value of the caller's.
func handValue(t *testing.T, db *pgxpool.Pool, r *outbox.Relay, topic, key, v string) {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // committed by then
	var b pgx.Batch
	h, err := r.Queue(&b, []outbox.Message{{Topic: topic, Key: []byte(key), Value: []byte(v)}})
	if err == nil {
		_, err = tx.Exec(t.Context(), `SELECT pg_current_xact_id()`) // as the lock on the key's row would take it
	}
	if err == nil {
		err = tx.SendBatch(t.Context(), &b).Close()
	}
	if err == nil {
		err = tx.Commit(t.Context())
	}
	h.Done(err == nil)
	if err != nil {
		t.Fatal(err)
	}
}

// A broker that hangs, and does not refuse, holds up its own partitions only, from the second try on.
func TestHangingBrokerHoldsUpItsPartitionsOnly(t *testing.T) {
	t.Parallel()
	keys := keysOf(2)
	db, k := keyed(t, 1), newMemory(2)
	k.refuse(0, true)
	r := outbox.NewRelay(db, k, outbox.Config{Poll: 20 * time.Millisecond})
	stop := start(t, r)
	emit(t, db, "t", keys[0], "0")
	eventually(t, "it was refused", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.calls > 0 })
	answer := make(chan struct{})
	k.mu.Lock()
	k.hanging[0] = answer
	tried := k.calls
	k.mu.Unlock()
	eventually(t, "it is tried again, and hangs", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.calls > tried })
	for i := range 20 {
		handValue(t, db, r, "t", keys[1], strconv.Itoa(i))
		eventually(t, "the other partition's event", k.has("t", keys[1], strconv.Itoa(i)))
	}
	k.refuse(0, false)
	close(answer)
	eventually(t, "the event that waited", k.has("t", keys[0], "0"))
	stop()
	if !empty(t, db)() {
		t.Error("something is left")
	}
}

// A look does not walk over what rests: with 100,000 events that wait for one partition, one more of another costs as
// many rows as with none.
func TestLooksDoNotWalkTheBacklogOfWhatRests(t *testing.T) {
	const waiting = 100_000
	keys := keysOf(3)
	db, k := keyedAlone(t, 1), newMemory(3)
	k.refuse(1, true)
	if _, err := db.Exec(t.Context(), `INSERT INTO outbox (topic, key, value, headers)
		SELECT 't', $1, repeat('x', 200)::bytea, '[["ce_id","1"]]' FROM generate_series(1, $2::int)`, []byte(keys[1]), waiting); err != nil {
		t.Fatal(err)
	}
	r := outbox.NewRelay(db, k, outbox.Config{})
	start(t, r)
	emit(t, db, "t", keys[0], "first")
	r.Wake()
	eventually(t, "the first event beside the backlog", k.has("t", keys[0], "first"))
	// A relay needs a few looks to know the table. Then each event costs a handful of rows, and each second a batch for
	// the look from zero.
	const events = 200
	n := 0
	eventually(t, "looks that read little", func() bool {
		before, began := rowsRead(t, db), time.Now()
		for range events {
			emit(t, db, "t", keys[n%2*2], strconv.Itoa(n)) // written by others: each costs a look
			r.Wake()
			eventually(t, "an event beside the backlog", k.has("t", keys[n%2*2], strconv.Itoa(n)))
			n++
		}
		read := rowsRead(t, db) - before
		t.Logf("%d rows were read for %d events in %v", read, events, time.Since(began))
		return read <= int64(events*20+(time.Since(began).Seconds()+1)*2000)
	})
	k.refuse(1, false)
	eventually(t, "the backlog is published", func() bool { return k.length("t")() == waiting+n+1 })
}

// rowsRead is how many rows of the outbox were read so far, by any way, as sessions have reported: they do once a
// second.
func rowsRead(t *testing.T, db *pgxpool.Pool) (n int64) {
	t.Helper()
	const read = `SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'outbox'`
	if err := db.QueryRow(t.Context(), read).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// An event that is larger than its topic takes holds up its key, and nobody else of the partition. It goes out, and
// then what waits behind it, when the topic takes it.
func TestTooLargeHoldsUpItsKeyAlone(t *testing.T) {
	t.Parallel()
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		db, cl, topic := database(t), client(t, c), c.Topic(t, 1)
		c.Configure(t, topic, "max.message.bytes", "8000")
		large := strings.Repeat("x", 20_000)
		emit(t, db, topic, "a", "0")
		for _, key := range []string{"big", "bigger"} { // two of them do not hold up each other either
			emit(t, db, topic, key, "0")
			emit(t, db, topic, key, strings.Repeat(large, len(key)/3))
			emit(t, db, topic, key, "1")
		}
		emit(t, db, topic, "a", "1")
		r := outbox.NewRelay(db, cl, outbox.Config{Poll: 50 * time.Millisecond, Retry: 200 * time.Millisecond})
		start(t, r)
		published := func(key string, values ...string) func() bool {
			return func() bool { return slices.Equal(firsts(read(t, cl, topic)[key]), values) }
		}
		eventually(t, "the other key's events", published("a", "0", "1"))
		for i := 2; i < 5; i++ { // also later, when the lanes have rested
			emit(t, db, topic, "a", strconv.Itoa(i))
			emit(t, db, topic, "big", strconv.Itoa(i))
			r.Wake()
		}
		eventually(t, "the other key's later events", published("a", "0", "1", "2", "3", "4"))
		for _, key := range []string{"big", "bigger"} {
			if !published(key, "0")() {
				t.Errorf("events of %q overtook the large one", key)
			}
		}
		c.Configure(t, topic, "max.message.bytes", "30000")
		eventually(t, "the large event, and those behind it", published("big", "0", large, "1", "2", "3", "4"))
		if !published("bigger", "0")() {
			t.Error("an event that is larger still went out")
		}
		c.Configure(t, topic, "max.message.bytes", "80000")
		eventually(t, "the larger event, and the one behind it", published("bigger", "0", large+large, "1"))
	})
}
