package naive

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
)

type draft struct {
	UserID   string       `json:"userId"`
	Items    []event.Item `json:"items"`
	Amount   int64        `json:"amount"`
	Currency string       `json:"currency"`
}

const insertOrderSQL = `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at)
VALUES ($1, $2, $3, $4, $5, 'PENDING', $6, $7)`

// place stores an order and its event in one transaction.
func (s *service) place(w http.ResponseWriter, r *http.Request) {
	now := time.Now().UTC()
	var d draft
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := uuid.Must(uuid.NewV7())
	items, err := json.Marshal(d.Items)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	created := emit{Created, uuid.Must(uuid.NewV7()), id, event.OrderCreatedV1{OrderID: id, UserID: d.UserID, Items: d.Items, Amount: d.Amount, Currency: d.Currency}}
	args, err := created.args()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	ctx := r.Context()
	err = pg.InTx(ctx, s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertOrderSQL, id, d.UserID, items, d.Amount, d.Currency, history("PENDING", event.OrderCreated.Name(), now), now); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insertOutboxSQL, args...)
		return err
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", "/orders/"+id.String())
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(struct {
		OrderID uuid.UUID `json:"orderId"`
		draft
		Status    string    `json:"status"`
		CreatedAt time.Time `json:"createdAt"`
	}{id, d, "PENDING", now}) // a client that has gone can ask for it later
}

const putProductSQL = `INSERT INTO products (id, name, price, currency, stock, available, reserved) VALUES ($1, $2, $3, $4, $5, $5, 0)`

func (s *service) putProduct(w http.ResponseWriter, r *http.Request) {
	var p struct {
		Name     string
		Price    int64
		Currency string
		Stock    int64
	}
	err := json.NewDecoder(r.Body).Decode(&p)
	if err == nil {
		_, err = s.db.Exec(r.Context(), putProductSQL, r.PathValue("id"), p.Name, p.Price, p.Currency, p.Stock)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// history is one entry of an order's history, in a list.
func history(status, name string, at time.Time) []byte {
	type entry struct {
		At     time.Time `json:"at"`
		Status string    `json:"status"`
		Event  string    `json:"event"`
	}
	b, err := json.Marshal([]entry{{at, status, name}})
	if err != nil {
		panic(err) // a plain struct
	}
	return b
}

func sortedItems(items []event.Item) []event.Item {
	return slices.SortedFunc(slices.Values(items), func(a, b event.Item) int { return cmp.Compare(a.ProductID, b.ProductID) })
}
