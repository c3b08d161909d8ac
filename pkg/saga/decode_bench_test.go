package saga

import (
	"testing"

	"github.com/google/uuid"
)

type benchItem struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
}

type benchOrder struct {
	OrderID  uuid.UUID   `json:"orderId"`
	UserID   string      `json:"userId"`
	Items    []benchItem `json:"items"`
	Amount   int64       `json:"amount"`
	Currency string      `json:"currency"`
}

const benchValue = `{"orderId":"01990000-0000-7000-8000-0000000000bb","userId":"user-1","items":[{"productId":"p-1","quantity":2},{"productId":"p-2","quantity":1}],"amount":4200,"currency":"EUR"}`

func BenchmarkDecodeData(b *testing.B) {
	value := []byte(benchValue)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeData[benchOrder](value); err != nil {
			b.Fatal(err)
		}
	}
}

// A record as a service of ours writes it.
func BenchmarkDecodeRecord(b *testing.B) {
	topic := NewTopic[benchOrder]("order.created")
	r, err := Encode("order", New(b.Context(), topic, "k", benchOrder{}))
	if err != nil {
		b.Fatal(err)
	}
	r.Value = []byte(benchValue)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(topic, r); err != nil {
			b.Fatal(err)
		}
	}
}
