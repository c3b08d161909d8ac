//go:build faults

package sabotage

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
)

// See the package's description.
var (
	SkipInbox    = chosen("skip-inbox")
	EarlyCommit  = chosen("early-commit")
	BypassOutbox = chosen("bypass-outbox")
)

func chosen(name string) bool { return os.Getenv("CONVERGE_SABOTAGE") == name }

// Publish sends messages to Kafka, and loses them where that fails: it is what the outbox is there to prevent.
func Publish(msgs []outbox.Message) {
	client, err := connect()
	if err != nil || len(msgs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	records := make([]broker.Record, len(msgs))
	for i, m := range msgs {
		records[i] = broker.Record{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers}
	}
	client.Produce(ctx, records)
}

var connect = sync.OnceValues(func() (*broker.Client, error) {
	return broker.Open(broker.Config{Brokers: strings.Split(os.Getenv("KAFKA_BROKERS"), ","), ClientID: "sabotage"})
})
