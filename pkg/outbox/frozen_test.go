//go:build unix

package outbox_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/brokertest"
)

const (
	envDatabase = "CONVERGE_TEST_OUTBOX_DATABASE"
	envBroker   = "CONVERGE_TEST_OUTBOX_BROKER"

	shortLease = time.Second
)

// relayProcess is a relay in a process of its own, until that is killed.
func relayProcess() {
	ctx := context.Background()
	db, err := pg.Open(ctx, os.Getenv(envDatabase))
	if err != nil {
		log.Fatal(err)
	}
	cl, err := broker.Open(broker.Config{Brokers: []string{os.Getenv(envBroker)}})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(outbox.NewRelay(db, cl, outbox.Config{Lease: shortLease, Poll: 50 * time.Millisecond}).Run(ctx))
}

// A leader whose process is frozen, as by a debugger or a paused machine, is succeeded; and wakes up as no leader.
func TestFrozenLeaderIsSucceeded(t *testing.T) {
	t.Parallel()
	c := brokertest.Fake(t)
	db, cl, topic := database(t), client(t, c), c.Topic(t, 1)
	first := exec.Command(os.Args[0]) //nolint:gosec // this test itself
	first.Env = append(os.Environ(), envDatabase+"="+db.Config().ConnString(), envBroker+"="+c.Brokers()[0])
	first.Stderr = os.Stderr
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = first.Process.Kill() // also of a frozen one
		_ = first.Wait()         // its state is the kill's
	})
	published := func(n int) func() bool {
		return func() bool { return len(firsts(read(t, cl, topic)["k"])) == n }
	}
	emit(t, db, topic, "k", "0")
	eventually(t, "the process leads", published(1))
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}

	stop := start(t, outbox.NewRelay(db, cl, outbox.Config{Lease: shortLease, Poll: 50 * time.Millisecond}))
	for i := 1; i < 20; i++ {
		emit(t, db, topic, "k", fmt.Sprint(i))
	}
	eventually(t, "another relay leads", published(20))
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stop()
	emit(t, db, topic, "k", "20")
	eventually(t, "the first leads again", published(21))
}
