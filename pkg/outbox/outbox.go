// Package outbox is the transactional outbox: events are rows, written in the transaction whose effects they tell, and
// a relay publishes them to Kafka afterwards. So an event exists if and only if its cause was committed. (Chris
// Richardson, "Pattern: Transactional outbox"; Pat Helland, "Life beyond Distributed Transactions", 2007.)
//
// Delivery is at least once, in the order of ids per key, provided that whoever emits for a key holds a lock
// on that key's row from before [Insert] until the commit. Consumers deduplicate.
package outbox

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migration is the outbox's schema: the table of what waits, and two that keep for a while what was published.
func Migration() pg.Migration {
	return pg.Migration{Name: "outbox", FS: pg.Dir(migrations, "migrations")}
}

// MaxMessageBytes bounds key, value and headers of one message together, where [Message.Limit] says nothing else. A row
// that no broker takes would wait for ever: it is refused where it is written, while its cause can still be undone.
const MaxMessageBytes = broker.MaxRecordBytes

// Message is an event to publish.
type Message struct {
	Topic   string
	Key     []byte
	Value   []byte
	Headers []broker.Header

	// Limit is how many bytes of key, value and headers together the topic takes, where that is not Kafka's default;
	// 0 means MaxMessageBytes.
	Limit int
}

// Size is the bytes of key, value and headers together, which [Message.Limit] bounds.
func (m *Message) Size() int {
	n := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

const insertSQL = `INSERT INTO outbox (topic, key, value, headers)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[])`

// Ids come in the order of the rows: there is nothing in the statement that could change it.
const insertIDsSQL = insertSQL + ` RETURNING id`

// queue adds the messages to a batch of statements of one transaction; no messages add no statement. It calls read,
// unless it is nil, with the rows' ids. It fails, naming the topic, on a message that is too large to publish.
func queue(b *pgx.Batch, msgs []Message, read func(pgx.Rows) error) error {
	if len(msgs) == 0 {
		return nil
	}
	topics := make([]string, len(msgs))
	keys := make([][]byte, len(msgs))
	values := make([][]byte, len(msgs))
	headers := make([]string, len(msgs))
	for i := range msgs {
		m := &msgs[i]
		if n, most := m.Size(), cmp.Or(m.Limit, MaxMessageBytes); n > most {
			return fmt.Errorf("message for %s has %d bytes, at most %d can be published", m.Topic, n, most)
		}
		topics[i], keys[i], values[i], headers[i] = m.Topic, m.Key, m.Value, encodeHeaders(m.Headers)
	}
	if read == nil {
		b.Queue(insertSQL, topics, keys, values, headers)
	} else {
		b.Queue(insertIDsSQL, topics, keys, values, headers).Query(read)
	}
	return nil
}

// Sender is what Insert needs of a transaction.
type Sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Insert writes the messages in tx, in order. After the commit, call [Relay.Wake].
func Insert(ctx context.Context, tx Sender, msgs []Message) error {
	var b pgx.Batch
	if err := queue(&b, msgs, nil); err != nil || b.Len() == 0 {
		return err
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	return nil
}

// Stats is how much waits to be published.
type Stats struct {
	Depth     int           // rows, counted up to 100,000
	OldestAge time.Duration // since the oldest was committed, or rather its transaction began; 0 when empty
}

const statsSQL = `SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
FROM (SELECT created_at FROM outbox ORDER BY id LIMIT 100000) AS waiting`

// ReadStats looks at the outbox of a database.
func ReadStats(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (Stats, error) {
	var s Stats
	var age float64
	if err := db.QueryRow(ctx, statsSQL).Scan(&s.Depth, &age); err != nil {
		return Stats{}, fmt.Errorf("read outbox statistics: %w", err)
	}
	s.OldestAge = max(0, time.Duration(age*float64(time.Second)))
	return s, nil
}

// plainHeaders reads [["name","value"],...] where nothing is escaped; anything else is not ok.
func plainHeaders(s string) (hs []broker.Header, ok bool) {
	if strings.ContainsAny(s, `\{`) {
		return nil, false
	}
	parts := strings.Split(s, `"`) // [[ name , value ],[ name , value ]]
	if len(parts)%4 != 1 || len(parts) < 5 {
		return nil, false
	}
	hs = make([]broker.Header, 0, len(parts)/4)
	for i := 0; i+4 < len(parts); i += 4 {
		open := parts[i] == "[[" || (i > 0 && parts[i] == "],[")
		if !open || parts[i+2] != "," {
			return nil, false
		}
		hs = append(hs, broker.Header{Key: parts[i+1], Value: []byte(parts[i+3])})
	}
	return hs, parts[len(parts)-1] == "]]"
}

const waitingSQL = `SELECT id, topic, key, value, headers, created_at FROM outbox ORDER BY id LIMIT $1`

// Waiting returns the first events that are not published yet, in order: for operators and tests.
func Waiting(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, limit int) ([]broker.Record, error) {
	rows, _ := db.Query(ctx, waitingSQL, limit) // the error surfaces in the collector
	found, err := pgx.CollectRows(rows, scanRow)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	out := make([]broker.Record, len(found))
	for i := range found {
		out[i] = found[i].record
	}
	return out, nil
}

// encodeHeaders keeps headers readable in psql: [[name, value], ...], where value is null for none. What is not UTF-8
// (in a foreign message on its way to a dead letter topic) is stored as base64, in an object to tell it from text: a
// value in its place, a name as a third element, behind a readable stand-in.
func encodeHeaders(hs []broker.Header) string {
	if text, ok := encodePlain(hs); ok {
		return text
	}
	rows := make([][]any, len(hs))
	for i, h := range hs {
		rows[i] = []any{strings.ToValidUTF8(h.Key, "\uFFFD"), nil}
		switch {
		case h.Value == nil:
		case utf8.Valid(h.Value):
			rows[i][1] = string(h.Value)
		default:
			rows[i][1] = binary{h.Value}
		}
		if !utf8.ValidString(h.Key) {
			rows[i] = append(rows[i], binary{[]byte(h.Key)})
		}
	}
	p, err := json.Marshal(rows)
	if err != nil {
		panic(err) // strings only
	}
	return string(p)
}

// binary is what is not text, in JSON.
type binary struct {
	Base64 []byte `json:"base64"`
}

// encodePlain writes headers of printable ASCII without quotes and backslashes, as nearly all are: nothing in them
// needs an escape.
func encodePlain(hs []broker.Header) (text string, ok bool) {
	n := 2
	for i := range hs {
		n += len(hs[i].Key) + len(hs[i].Value) + 8
	}
	b := append(make([]byte, 0, n), '[')
	for i := range hs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `["`...), hs[i].Key...), `","`...)
		b = append(append(b, hs[i].Value...), `"]`...)
		if hs[i].Value == nil || !plain(hs[i].Key) || !plain(hs[i].Value) {
			return "", false
		}
	}
	return string(append(b, ']')), true
}

func plain[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// decodeHeaders reads what encodeHeaders wrote. The relay does so for every event, and nearly all headers are plain
// text without escapes, which plainHeaders reads in a tenth of the time.
func decodeHeaders(s string) ([]broker.Header, error) {
	if hs, ok := plainHeaders(s); ok {
		return hs, nil
	}
	var rows [][]json.RawMessage
	if err := json.Unmarshal([]byte(s), &rows); err != nil {
		return nil, fmt.Errorf("outbox headers: %w", err)
	}
	hs := make([]broker.Header, len(rows))
	for i, row := range rows {
		if err := decodeHeader(&hs[i], row); err != nil {
			return nil, fmt.Errorf("outbox headers: %w", err)
		}
	}
	return hs, nil
}

func decodeHeader(h *broker.Header, row []json.RawMessage) error {
	if len(row) < 2 {
		return fmt.Errorf("a header has %d parts, want a name and a value", len(row))
	}
	if err := json.Unmarshal(row[0], &h.Key); err != nil {
		return err
	}
	var raw binary
	if len(row) > 2 {
		if err := json.Unmarshal(row[2], &raw); err != nil {
			return err
		}
		h.Key = string(raw.Base64)
	}
	var text *string
	if err := json.Unmarshal(row[1], &text); err == nil {
		if text != nil {
			h.Value = []byte(*text)
		}
		return nil
	}
	err := json.Unmarshal(row[1], &raw)
	h.Value = raw.Base64
	return err
}
