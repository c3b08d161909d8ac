package broker_test

import (
	"context"
	"fmt"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// A member of a consumer group reads what is assigned to it, and commits how far it came.
func ExampleClient_Consume() {
	t, done := pgtest.Example()
	defer done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	client, err := broker.Open(broker.Config{Brokers: brokertest.Fake(t).Brokers()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	if err := client.EnsureTopics(ctx, []broker.TopicSpec{{Name: "greetings", Partitions: 3}}); err != nil {
		fmt.Println(err)
		return
	}
	for _, err := range client.Produce(ctx, []broker.Record{
		{Topic: "greetings", Key: []byte("ada"), Value: []byte("good morning")},
		{Topic: "greetings", Key: []byte("ada"), Value: []byte("good night")},
	}) {
		if err != nil {
			fmt.Println(err)
		}
	}
	err = client.Consume(ctx, broker.GroupConfig{Group: "reader", Topics: []string{"greetings"}}, func(ctx context.Context, s *broker.Session) {
		for seen := 0; seen < 2; {
			polled, err := s.Poll(ctx, 100)
			if err != nil {
				return // ctx has ended
			}
			for _, r := range polled.Records {
				fmt.Printf("%s: %s\n", r.Key, r.Value)
				if err := s.Commit(map[broker.TopicPartition]int64{{Topic: r.Topic, Partition: r.Partition}: r.Offset + 1}); err != nil {
					fmt.Println(err)
				}
				seen++
			}
		}
		stop()
	})
	fmt.Println("stopped:", err)
	// Output:
	// ada: good morning
	// ada: good night
	// stopped: <nil>
}
