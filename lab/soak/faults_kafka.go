package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/broker"
)

// deletable are the topics that a fault deletes: one that a group has for itself, and one beside others of its group,
// which have to go on.
var deletable = []string{"order.confirmed", "inventory.released"}

func someTopic(_ *world, rnd *rand.Rand) string { return deletable[rnd.IntN(len(deletable))] }

// deleteTopic deletes a topic with all that is in it, and creates it again. What it held before is noted for the
// checker; what came after that, and was never handled, has to be published again. While it is missing, every
// connection to the brokers is cut once, so that the groups look for their topics anew.
func deleteTopic(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) {
	w := c.world
	i := slices.IndexFunc(w.topics, func(t broker.TopicSpec) bool { return t.Name == on })
	held, err := w.archive(ctx, on)
	if err != nil {
		return "", err
	}
	if err := w.servers.DeleteTopic(ctx, on); err != nil {
		return "", err
	}
	gone := c.poisons.forgive(on)
	pause(ctx, between(rnd, time.Second, 2*time.Second))
	for _, p := range w.brokers {
		p.CutAll()
	}
	pause(ctx, between(rnd, 12*time.Second, 14*time.Second))
	if err := w.recreate(ctx, w.topics[i]); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d records were in it, %d poison of the last minute is not asked for", held, gone), nil
}

// archive notes the events in a topic that is about to be deleted.
func (w *world) archive(ctx context.Context, topic string) (held int, err error) {
	err = w.client.Scan(ctx, topic, func(r broker.Record) error {
		held++
		w.archived.take(&r)
		return nil
	})
	return held, err
}

// recreate creates a topic, as soon as the broker is done with the one of that name that it has deleted.
func (w *world) recreate(ctx context.Context, spec broker.TopicSpec) error {
	for last := time.Now().Add(20 * time.Second); ; {
		err := w.servers.CreateTopics(ctx, []broker.TopicSpec{spec})
		if err == nil || ctx.Err() != nil || time.Now().After(last) {
			return err
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// leaderless takes the second broker away, so that every third partition has no leader.
func leaderless(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) {
	srv := c.world.servers.Second
	signal := []string{"SIGTERM", "SIGKILL"}[rnd.IntN(2)]
	if err := srv.Stop(ctx, signal); err != nil {
		return "", err
	}
	pause(ctx, between(rnd, 12*time.Second, 15*time.Second))
	headless, err := c.world.servers.Leaderless(ctx)
	if headless == 0 && err == nil {
		err = errors.New("every partition has a leader")
	}
	back, startErr := comeBack(ctx, srv)
	return fmt.Sprintf("%s, %d partitions without a leader, %s", signal, headless, back), errors.Join(err, startErr)
}

// remembered is how much of its last seconds the broker forgets.
const remembered = 5 * time.Second

// amnesia kills the broker, and takes the last seconds of every event topic from its logs, acknowledged as they were.
func amnesia(ctx context.Context, c *calamity, _ string, _ *rand.Rand) (string, error) {
	kafka, topics := c.world.servers.Kafka, append(eventTopics(), witness.Counted.Name())
	was, err := kafka.Sizes(ctx, topics)
	if err != nil {
		return "", err
	}
	pause(ctx, remembered)
	if err := kafka.Stop(ctx, "SIGKILL"); err != nil {
		return "", err
	}
	lost, err := kafka.CutBack(ctx, topics, was)
	back, startErr := comeBack(ctx, kafka)
	note := fmt.Sprintf("%d KiB of logs forgotten, %s", lost>>10, back)
	if lost == 0 && err == nil {
		err = errors.New("there was nothing to forget")
	}
	return note, errors.Join(err, startErr)
}
