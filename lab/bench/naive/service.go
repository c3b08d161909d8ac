package naive

import (
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
)

// prefix keeps the topics apart from the system's own on the same cluster.
const prefix = "usual."

// The topics of the happy path, which is all that the bench takes.
var (
	Created   = prefix + event.OrderCreated.Name()
	Reserved  = prefix + event.InventoryReserved.Name()
	Paid      = prefix + event.PaymentCompleted.Name()
	Confirmed = prefix + event.OrderConfirmed.Name()
)

// Topics are all that have to exist.
func Topics() []string { return []string{Created, Reserved, Paid, Confirmed} }

// service is one of the three.
type service struct {
	name   string
	db     *pgxpool.Pool
	broker string
}

// emit is one event on its way into the outbox. Its id, which consumers deduplicate by, goes where headers are kept.
type emit struct {
	topic string
	id    uuid.UUID
	key   uuid.UUID
	value any
}

const insertOutboxSQL = `INSERT INTO outbox (topic, key, value, headers) VALUES ($1, $2, $3, $4)`

func (e emit) args() ([]any, error) {
	value, err := json.Marshal(e.value)
	return []any{e.topic, []byte(e.key.String()), value, e.id.String()}, err
}
