package system

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Product is something to sell in the demonstration.
type Product struct {
	ID       string `json:"-"`
	Name     string `json:"name"`
	Price    int64  `json:"price"` // minor units
	Currency string `json:"currency"`
	Stock    int64  `json:"stock"` // units
}

// Products are enough to see every way an order can go: plenty of one, and hardly any of another.
func Products() []Product {
	return []Product{
		{ID: "coffee-beans", Name: "Coffee beans, 1 kg", Price: 1250, Currency: "EUR", Stock: 100_000},
		{ID: "espresso-cup", Name: "Espresso cup", Price: 600, Currency: "EUR", Stock: 10_000},
		{ID: "grinder", Name: "Hand grinder, last ones", Price: 8900, Currency: "EUR", Stock: 3},
	}
}

// Seed puts the products in stock at an inventory service, given its URL. One that is there already is left alone, so
// that a restart does not give back what was sold.
func Seed(ctx context.Context, inventoryURL string) error {
	for _, p := range Products() {
		url := inventoryURL + "/products/" + p.ID
		status, _, err := call(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("seed %s: %w", p.ID, err)
		}
		if status == http.StatusOK {
			continue
		}
		status, answer, err := call(ctx, http.MethodPut, url, p)
		if err != nil {
			return fmt.Errorf("seed %s: %w", p.ID, err)
		}
		if status >= 300 {
			return fmt.Errorf("seed %s: inventory answered %d: %s", p.ID, status, answer)
		}
	}
	return nil
}

func call(ctx context.Context, method, url string, body any) (int, []byte, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return res.StatusCode, answer, err
}
