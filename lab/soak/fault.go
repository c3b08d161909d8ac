package soak

import (
	"math/rand/v2"
	"time"
)

// faults lists all there are.
func faults() []fault {
	return []fault{
		{"kill", seconds(3), anyService, process, kill},
		{"zombie", seconds(14), anyService, both, zombie},
		{"rebalance", scaled(20 * time.Second), anyService, both, rebalance},
		{"clock", scaled(20 * time.Second), always("order and payment"), processes("order", "payment"), skew},
		{"kafka-restart", seconds(8), always("kafka"), server, restartServer("SIGTERM")},
		{"kafka-kill", seconds(8), always("kafka"), server, restartServer("SIGKILL")},
		{"kafka-away", scaled(time.Minute), always("kafka"), server, kafkaAway},
		{"kafka-cut", seconds(5), always("kafka"), network, cutKafka},
		{"database-restart", seconds(4), anyService, server, restartServer("SIGINT")},
		{"database-immediate", seconds(4), anyService, server, restartServer("SIGQUIT")},
		{"commit-cut", seconds(4), anyService, network, cutCommits},
		{"disk-full", scaled(12 * time.Second), roomless, server, fillDisk},
		{"poison", seconds(5), always("topics"), topics, poison},

		{"topic-deleted", seconds(18), someTopic, kafkaAndTopics, deleteTopic},
		{"partition-leaderless", seconds(25), always("kafka-2"), cluster, leaderless},
		{"key-poisoned", seconds(25), always("witness"), topics, poisonKey},
		{"oversized", seconds(10), always("topics"), kafkaAndTopics, oversize},
		{"kafka-amnesia", seconds(20), always("kafka"), kafkaAndTopics, amnesia},
		{"database-blackhole", seconds(20), anyService, database, blackhole},
		{"frozen-in-transaction", seconds(30), anyService, frozenWith, freeze},
		{"slow-client", seconds(20), anyService, process, slow},
		{rollingUpgrade, seconds(40), always("all services"), everySecond, upgrade},
	}
}

// FaultNames lists the names that [Options] take.
func FaultNames() []string {
	var names []string
	for _, f := range faults() {
		names = append(names, f.name)
	}
	return names
}

func seconds(n int) func(*Options) time.Duration {
	return func(*Options) time.Duration { return time.Duration(n) * time.Second }
}

func scaled(d time.Duration) func(*Options) time.Duration {
	return func(o *Options) time.Duration { return o.long(d) }
}

func anyService(w *world, rnd *rand.Rand) string { return w.opts.On[rnd.IntN(len(w.opts.On))] }

func always(on string) func(*world, *rand.Rand) string {
	return func(*world, *rand.Rand) string { return on }
}

func roomless(w *world, _ *rand.Rand) string { return w.small }

func process(on string) []string { return []string{"process " + on} }

func both(on string) []string { return []string{"process " + on, "second " + on} }

func server(on string) []string { return []string{"server " + on} }

func network(on string) []string { return []string{"network " + on} }

// cluster is what brokers need to come and go: the other one and its network.
func cluster(string) []string { return []string{"server kafka", "network kafka"} }

func database(on string) []string { return append(server(on), network(on)...) }

func topics(string) []string { return []string{"topics"} }

// kafkaAndTopics is for what changes topics behind everybody's back: nothing else may be in them, and the broker has to
// be there.
func kafkaAndTopics(on string) []string { return append(cluster(on), topics(on)...) }

func frozenWith(on string) []string { return append(both(on), database(on)...) }

// everySecond is the second instances of all services, and what these need to start.
func everySecond(string) []string {
	held := cluster("")
	for _, name := range serviceNames() {
		held = append(held, "second "+name)
		held = append(held, server(name)...)
	}
	return held
}

func processes(names ...string) func(string) []string {
	return func(string) []string {
		var held []string
		for _, name := range names {
			held = append(held, process(name)...)
		}
		return held
	}
}
