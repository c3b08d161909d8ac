package outbox_test

import (
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// The network between the leader and its database swallows everything. Another relay, with a way of its own, succeeds
// it within seconds, and the first one is there again when the network is.
func TestLeaderBehindABlackHoleIsSucceeded(t *testing.T) {
	t.Parallel()
	db, k := database(t), newMemory(1)
	hole := pgtest.NewHole(t, db.Config().ConnString())
	far, err := pg.Open(t.Context(), hole.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(far.Close)
	cfg := outbox.Config{Lease: shortLease, Poll: 50 * time.Millisecond}
	var first, second said
	firstCfg, secondCfg := cfg, cfg
	firstCfg.Log, secondCfg.Log = first.logger(), second.logger()
	stopFirst := start(t, outbox.NewRelay(far, k, firstCfg))
	emit(t, db, "t", "k", "0")
	eventually(t, "the first leads", k.has("t", "k", "0"))
	stopSecond := start(t, outbox.NewRelay(db, k, secondCfg))

	hole.Swallow()
	began := time.Now()
	emit(t, db, "t", "k", "1")
	eventually(t, "the second leads", k.has("t", "k", "1"))
	t.Logf("succeeded after %v", time.Since(began))
	eventually(t, "the first knows that it does not lead", func() bool { return first.times("lost its database") > 0 })
	hole.Pass()
	stopSecond()
	emit(t, db, "t", "k", "2")
	eventually(t, "the first leads again", k.has("t", "k", "2"))
	hole.Swallow()
	stopping := time.Now()
	stopFirst()
	if took := time.Since(stopping); took > 10*time.Second {
		t.Errorf("the relay stopped after %v", took)
	}
}
