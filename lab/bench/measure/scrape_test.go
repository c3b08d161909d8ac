package measure

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBatchesFromMetrics(t *testing.T) {
	t.Parallel()
	const page = `# HELP converge_consumer_batch_size Messages.
# TYPE converge_consumer_batch_size histogram
converge_consumer_batch_size_bucket{group="inventory",le="1"} 3
converge_consumer_batch_size_sum{group="inventory"} %[1]s
converge_consumer_batch_size_count{group="inventory"} 40
converge_consumer_batch_size_sum{group="inventory.release"} 0
converge_consumer_batch_size_count{group="inventory.release"} 0
converge_consumer_handler_seconds_sum{group="inventory",topic="order.created"} 0.06
converge_consumer_duplicates_total{group="inventory"} 2
converge_outbox_batch_size_sum 900
converge_outbox_batch_size_count 30
go_info{version="go1.26"} 1
`
	before, after := series{}, series{}
	for s, sum := range map[*series]string{&before: "400", &after: "1.0e+03"} {
		if err := s.read(strings.NewReader(strings.ReplaceAll(page, "%[1]s", sum))); err != nil {
			t.Fatal(err)
		}
	}
	before[batchCount+`{group="inventory"}`] = 20
	before[relayCount], before[relaySum] = 0, 0
	got := after.since(before).batches("inventory")
	want := []Batch{{Who: "inventory", Transactions: 20, Average: 30}, {Who: "relay of inventory", Transactions: 30, Average: 30}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := (series{}).read(strings.NewReader("nonsense")); err == nil {
		t.Error("nonsense was read as a sample")
	}
}
