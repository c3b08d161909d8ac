package event_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

var (
	orderID   = uuid.MustParse("01a20a08-7e33-7b2f-a4e0-a9164d8e8df3")
	paymentID = uuid.MustParse("01a20a08-7e43-7488-b003-46989fd0cff4")
)

// contract is one topic with an example of its value.
type contract struct {
	topic  saga.AnyTopic
	value  any
	decode func(value []byte) (any, error)
	may    []string // fields that may be missing
}

func (c contract) with(may ...string) contract { c.may = may; return c }

func of[T any](topic saga.Topic[T], value T) contract {
	return contract{topic: topic, value: value, decode: func(v []byte) (any, error) {
		m, err := saga.Decode(topic, broker.Record{Topic: topic.Name(), Value: v})
		return m.Data, err
	}}
}

func contracts() []contract {
	return []contract{
		of(event.OrderCreated, event.OrderCreatedV1{
			OrderID: orderID, UserID: "ada", Amount: 3100, Currency: "EUR",
			Items: []event.Item{{ProductID: "coffee-beans", Quantity: 2}, {ProductID: "espresso-cup", Quantity: 1}},
		}),
		of(event.OrderConfirmed, event.OrderConfirmedV1{OrderID: orderID}),
		of(event.OrderCancelled, event.OrderCancelledV1{OrderID: orderID, Reason: "out of stock: grinder: 5 wanted, 3 available",
			Code: event.CodeOutOfStock, Parameters: event.Parameters{"productId": "grinder", "wanted": "5", "available": "3"}}).with("code", "parameters"),
		of(event.InventoryReserved, event.InventoryReservedV1{OrderID: orderID, UserID: "ada", Amount: 3100, Currency: "EUR"}),
		of(event.InventoryReservationFailed, event.InventoryReservationFailedV1{OrderID: orderID, Error: "unknown product: tea",
			Code: event.CodeUnknownProduct, Parameters: event.Parameters{"productId": "tea"}}).with("code", "parameters"),
		of(event.InventoryReleased, event.InventoryReleasedV1{OrderID: orderID}),
		of(event.PaymentCompleted, event.PaymentCompletedV1{OrderID: orderID, PaymentID: paymentID, Amount: 3100, Currency: "EUR"}).with("currency"),
		of(event.PaymentFailed, event.PaymentFailedV1{OrderID: orderID, Error: "user ada is declined",
			Code: event.CodeDeclined, Parameters: event.Parameters{"userId": "ada"}}).with("code", "parameters"),
		of(event.OrderCancelRequested, event.OrderCancelRequestedV1{OrderID: orderID, Reason: "changed my mind", Code: event.CodeCancelledByUser}).with("code", "parameters"),
		of(event.PaymentRefunded, event.PaymentRefundedV1{OrderID: orderID, PaymentID: paymentID, Amount: 3100, Currency: "EUR"}).with("currency"),
		of(event.ProductUpdated, event.ProductUpdatedV1{
			ProductID: "coffee-beans", Version: 3, Name: "Coffee beans, 1 kg", Price: 1250, Currency: "EUR", Stock: event.InStock,
		}).with("price"), // none is free
		of(event.UserProfileUpdated, event.UserProfileUpdatedV1{
			UserID: "ada", Version: 2, Name: "Ada Lovelace", Email: "ada@example.com", Bio: "Writes programs for machines that are not built yet.",
		}).with("email", "bio"),
		of(event.PaymentRefundFailed, event.PaymentRefundFailedV1{OrderID: orderID, Error: "account merchant.EUR is frozen",
			Code: event.CodeAccountFrozen, Parameters: event.Parameters{"accountId": "merchant.EUR"}}).with("code", "parameters"),
	}
}

func golden(t *testing.T, topic string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", topic+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The golden files are what is on the wire, at other teams' consumers too: if one of these fails, the contract broke.
func TestGolden(t *testing.T) {
	for _, c := range contracts() {
		t.Run(c.topic.Name(), func(t *testing.T) {
			want := golden(t, c.topic.Name())
			got, err := json.MarshalIndent(c.value, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimSpace(string(want)), string(got)); d != "" {
				t.Errorf("what is written is not the golden file (-want +got):\n%s", d)
			}
			back, err := c.decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.value, back); d != "" {
				t.Errorf("what is read is not what was meant (-want +got):\n%s", d)
			}
		})
	}
}

func TestEveryTopicHasAGoldenFile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(contracts()) {
		t.Errorf("%d golden files for %d contracts", len(files), len(contracts()))
	}
}

// The contracts only grow: each field of each topic stays what it was. See sagatest.Golden for what to do instead.
func TestContracts(t *testing.T) {
	var names []string
	for _, c := range contracts() {
		names = append(names, c.topic.Name())
		sagatest.Golden(t, c.topic)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, file := range sources {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			declared = append(declared, string(m[1]))
		}
	}
	if d := cmp.Diff(slices.Sorted(slices.Values(declared)), slices.Sorted(slices.Values(names))); d != "" {
		t.Errorf("not every topic that is declared has its contract here (-declared +here):\n%s", d)
	}
	files, err := filepath.Glob("testdata/contracts/*.json")
	if err != nil || len(files) != len(names) {
		t.Errorf("%d files of contracts for %d topics, %v: a topic cannot go while somebody may read it", len(files), len(names), err)
	}
}

var declaration = regexp.MustCompile(`saga\.NewTopic\[\w+\]\("([^"]+)"`)

// A consumer ignores what it does not know, and refuses what lacks a field that it needs, naming it.
func TestFieldsComeAndNeverGo(t *testing.T) {
	for _, c := range contracts() {
		t.Run(c.topic.Name(), func(t *testing.T) {
			var fields map[string]any
			if err := json.Unmarshal(golden(t, c.topic.Name()), &fields); err != nil {
				t.Fatal(err)
			}
			decode := func(fields map[string]any) error {
				b, err := json.Marshal(fields)
				if err != nil {
					t.Fatal(err)
				}
				_, err = c.decode(b)
				return err
			}
			for name := range fields {
				less := map[string]any{"addedLater": 1}
				for k, v := range fields {
					if k != name {
						less[k] = v
					}
				}
				err := decode(less)
				if slices.Contains(c.may, name) {
					if err != nil {
						t.Errorf("without %s, which may be missing: %v", name, err)
					}
					continue
				}
				if err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("without %s: error %v, want one that names it", name, err)
				}
			}
			fields["addedLater"] = map[string]any{"x": []int{1}}
			if err := decode(fields); err != nil {
				t.Errorf("with a field that was added later: %v", err)
			}
		})
	}
}

func TestItemsAreChecked(t *testing.T) {
	created := contracts()[0].value.(event.OrderCreatedV1)
	for want, items := range map[string][]event.Item{
		"items[1].quantity":  {{ProductID: "a", Quantity: 1}, {ProductID: "b", Quantity: 0}},
		"items[0].productId": {{Quantity: 1}},
		"items is":           {},
	} {
		created.Items = items
		if err := created.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one that names %s", items, err, want)
		}
	}
}

// Every contract names its fields as the API does, and holds amounts in integers.
func TestFieldNames(t *testing.T) {
	for _, c := range contracts() {
		typ := reflect.TypeOf(c.value)
		for f := range typ.Fields() {
			if tag := f.Tag.Get("json"); tag == "" || strings.ToLower(tag[:1]) != tag[:1] || strings.Contains(tag, ",") {
				t.Errorf("%s.%s: json name %q; want camelCase and no options", typ.Name(), f.Name, tag)
			}
			if k := f.Type.Kind(); k == reflect.Float32 || k == reflect.Float64 {
				t.Errorf("%s.%s is a %s", typ.Name(), f.Name, k)
			}
		}
	}
}
