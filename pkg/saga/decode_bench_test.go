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

func BenchmarkDecodeData(b *testing.B) {
	value := []byte(`{"orderId":"01990000-0000-7000-8000-0000000000bb","userId":"user-1","items":[{"productId":"p-1","quantity":2},{"productId":"p-2","quantity":1}],"amount":4200,"currency":"EUR"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeData[benchOrder](value); err != nil {
			b.Fatal(err)
		}
	}
}
