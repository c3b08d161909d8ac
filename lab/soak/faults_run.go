package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// kill ends a service as a crash does, wherever it is, and starts it again.
func kill(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) {
	i := c.world.first(on)
	c.world.kill(i)
	pause(ctx, between(rnd, 50*time.Millisecond, 2*time.Second))
	return "", c.world.restart(ctx, i)
}

// zombie freezes a service for longer than its session lasts, while another instance takes over what it holds, and then
// lets it go on with what it believes.
func zombie(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) {
	successor, err := c.world.join(ctx, on)
	if err != nil {
		return "", err
	}
	i := c.world.first(on)
	pause(ctx, between(rnd, time.Second, 2*time.Second))
	i.Signal(sigStop)
	pause(ctx, sessionTimeout+between(rnd, time.Second, 3*time.Second))
	i.Signal(sigCont)
	pause(ctx, between(rnd, time.Second, 3*time.Second))
	return "", errors.Join(c.world.leave(successor), c.world.ready(ctx, i))
}

// rebalance starts and stops a second instance every few seconds.
func rebalance(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) {
	end := time.Now().Add(c.world.opts.long(20 * time.Second))
	times := 0
	for times == 0 || (time.Now().Before(end) && ctx.Err() == nil) {
		times++
		other, err := c.world.join(ctx, on)
		pause(ctx, between(rnd, time.Second, 3*time.Second))
		if err = errors.Join(err, c.world.leave(other)); err != nil {
			return "", err
		}
		pause(ctx, between(rnd, time.Second, 3*time.Second))
	}
	return fmt.Sprintf("%d instances came and went", times), nil
}

// skew lets two services run with clocks an hour apart.
func skew(ctx context.Context, c *calamity, _ string, rnd *rand.Rand) (string, error) {
	offsets := map[string]string{"order": "30m", "payment": "-30m"}
	if rnd.IntN(2) == 0 {
		offsets = map[string]string{"order": "-30m", "payment": "30m"}
	}
	// One that did not stop as promised is started again all the same: the load waits for it.
	set := func(env func(service string) []string) (err error) {
		for service := range offsets {
			i := c.world.first(service)
			err = errors.Join(err, c.world.stop(i), c.world.restart(ctx, i, env(service)...))
		}
		return err
	}
	err := set(func(service string) []string { return []string{"CONVERGE_CLOCK_OFFSET=" + offsets[service]} })
	pause(ctx, c.world.opts.long(15*time.Second))
	err = errors.Join(err, set(func(string) []string { return nil }))
	return fmt.Sprintf("order %s, payment %s", offsets["order"], offsets["payment"]), err
}

// restartServer ends the broker or a database with a signal, and starts it again with its data.
func restartServer(signal string) func(context.Context, *calamity, string, *rand.Rand) (string, error) {
	return func(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) {
		srv := c.world.server(on)
		if err := srv.Stop(ctx, signal); err != nil {
			return "", err
		}
		pause(ctx, between(rnd, 200*time.Millisecond, 3*time.Second))
		return comeBack(ctx, srv)
	}
}

// comeBack starts a server that has ended.
func comeBack(ctx context.Context, srv *rig.Server) (string, error) {
	began := time.Now()
	if err := srv.Start(ctx); err != nil {
		return "", err
	}
	err := srv.Await(ctx)
	return fmt.Sprintf("back %.1f s after its start", time.Since(began).Seconds()), err
}

// kafkaAway takes the broker away for long, while orders come in faster than ever.
func kafkaAway(ctx context.Context, c *calamity, _ string, _ *rand.Rand) (string, error) {
	kafka := c.world.servers.Kafka
	if err := kafka.Stop(ctx, "SIGTERM"); err != nil {
		return "", err
	}
	before, began := c.load.counts().Acked, time.Now()
	c.load.setRate(c.world.opts.Burst)
	pause(ctx, c.world.opts.long(time.Minute))
	taken, lasted := c.load.counts().Acked-before, time.Since(began)
	c.load.setRate(c.world.opts.Rate)
	note := fmt.Sprintf("%d orders taken meanwhile (%.0f/s)", taken, float64(taken)/lasted.Seconds())
	if taken == 0 {
		return note, errors.New("no order was taken while Kafka was away")
	}
	back, err := comeBack(ctx, kafka)
	return note + ", " + back, err
}

// cutKafka cuts one connection to the broker after the other.
func cutKafka(ctx context.Context, c *calamity, _ string, rnd *rand.Rand) (string, error) {
	cuts := 0
	for end := time.Now().Add(between(rnd, 2*time.Second, 5*time.Second)); time.Now().Before(end) && ctx.Err() == nil; {
		if c.world.brokers[rnd.IntN(len(c.world.brokers))].CutOne(rnd) {
			cuts++
		}
		pause(ctx, between(rnd, 20*time.Millisecond, 300*time.Millisecond))
	}
	return fmt.Sprintf("%d connections cut", cuts), nil
}

// cutCommits lets commits reach a database, and their answers get lost.
func cutCommits(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) {
	cutter := c.world.gates[on].Cutter
	before := cutter.Done.Load()
	for end := time.Now().Add(between(rnd, 2*time.Second, 4*time.Second)); time.Now().Before(end) && ctx.Err() == nil; {
		cutter.Wanted.Store(1)
		pause(ctx, between(rnd, 50*time.Millisecond, 400*time.Millisecond))
	}
	cutter.Wanted.Store(0)
	return fmt.Sprintf("%d commits cut", cutter.Done.Load()-before), nil
}

// fillDisk leaves a database no room, and then gives it back. A server that could not go on without it is started
// again, as whoever runs it would.
func fillDisk(ctx context.Context, c *calamity, on string, _ *rand.Rand) (string, error) {
	srv := c.world.server(on)
	if err := srv.Fill(ctx); err != nil {
		return "", err
	}
	pause(ctx, c.world.opts.long(12*time.Second))
	if err := srv.Free(ctx); err != nil {
		return "", err
	}
	running, err := srv.Running(ctx)
	if err != nil {
		return "", err
	}
	if !running {
		note, err := comeBack(ctx, srv)
		return "the server had ended, " + note, err
	}
	return "the server went on", srv.Await(ctx)
}
