// Package facts lets services show each other what they hold of the same things, so that somebody can check that they
// agree: one service holds an order confirmed, another has its items reserved, a third has it paid, and when everything
// that was told has been heard, these are three sets of ids that must be equal.
//
// Nobody wants to move a million ids to see that they are equal. A service answers with a digest of its set for each
// span of time, by the time in the id itself (UUIDv7): how many, and a hash that does not depend on their order. Who
// compares goes down only into spans that differ. This is anti-entropy as in Dynamo (DeCandia et al., 2007, 4.7) with
// spans of time in place of a tree of hashes: ids are in the order of time, so each level is one range of the primary
// key.
//
// Digests are computed from the rows when they are asked for. One that was kept along with the rows would agree with
// whoever wrote it, and not with the row that somebody else has changed since.
package facts

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// Source is where a service keeps what it holds: one row per thing. All but Set are SQL of the service's own, never
// input.
type Source struct {
	Set    string // what the members are, such as "confirmed"
	Table  string // of the rows, such as "orders"
	ID     string // the column of their ids, a uuid: the table's primary key
	Member string // condition: the row is in the set
	Open   string // condition: the row is on its way to another state; empty: none ever is
	Amount string // what the members are summed up by; empty: nothing

	// What is held of the members, where two services must hold the same of it.
	Currency, User string // with Amount: the columns of who pays in which currency; empty: that is not digested
	Items          string // the jsonb column of the lines; empty: that is not digested

	// Facts selects id, member, status, amount, currency, changed_at, detail, user, items of rows, without a WHERE. Key
	// is the column of the ids in it, where it is not ID. changed_at is when the row became what it is. user is NULL
	// where there is none to tell; items is [ItemsSQL] or empty.
	Facts string
	Key   string
}

// Bucket digests the rows whose ids were made in one span of time.
type Bucket struct {
	Start  int64  `json:"start" doc:"where the span begins, in milliseconds since 1970"`
	Rows   int64  `json:"rows" doc:"rows, members or not"`
	Count  int64  `json:"count" doc:"members"`
	Hash   string `json:"hash" doc:"XOR of the first 8 bytes of the SHA-256 of the 16 bytes of each member's id, in hexadecimal"`
	Amount int64  `json:"amount,omitempty" doc:"sum of the members' amounts, in minor units, whatever their currency"`
	Open   int64  `json:"open,omitempty" doc:"rows that are on their way to another state"`
	Money  string `json:"money,omitempty" doc:"as hash, of each member's id and who pays how much; none: the service does not say"`
	Items  string `json:"items,omitempty" doc:"as hash, of each member's id and the lines of products and units; none: the service does not say"`
}

// Agrees tells whether two buckets of a span hold the same members, and the same of them as far as both say: a service
// of an earlier version says less.
func (b Bucket) Agrees(o Bucket) bool {
	return b.Count == o.Count && b.Hash == o.Hash && agree(b.Money, o.Money) && agree(b.Items, o.Items)
}

func agree(a, b string) bool { return a == "" || b == "" || a == b }

// Fact is what a service holds of one thing.
type Fact struct {
	ID        uuid.UUID `json:"id"`
	Member    bool      `json:"member" doc:"whether it is in the service's set"`
	Status    string    `json:"status"`
	Amount    int64     `json:"amount,omitempty" doc:"minor units"`
	Currency  string    `json:"currency,omitempty"`
	ChangedAt time.Time `json:"changedAt" doc:"when it became so"`
	Detail    string    `json:"detail,omitempty" doc:"for people"`
	UserID    *string   `json:"userId,omitempty" doc:"who pays; none: the service does not say"`
	Items     string    `json:"items,omitempty" doc:"lines of product and units, as JSON; none: the service does not say"`
}

// HashOf is a member's part of a digest.
func HashOf(id uuid.UUID) uint64 {
	sum := sha256.Sum256(id[:])
	return binary.BigEndian.Uint64(sum[:8])
}

// Span is from the first id of a millisecond up to the first of another.
type Span struct{ From, To uuid.UUID }

// Between is the span of the ids that were made from one moment on and before another.
func Between(from, to time.Time) Span { return Span{FirstOf(from), FirstOf(to)} }

// FirstOf is not after any UUIDv7 of that millisecond and later, and after those before.
func FirstOf(at time.Time) (id uuid.UUID) {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, at.UnixMilli()))<<16)
	copy(id[:6], ms[:6])
	return id
}

// TimeOf is when a UUIDv7 was made, in milliseconds. Of any other id it is whatever its first 48 bits say.
func TimeOf(id uuid.UUID) time.Time {
	var ms [8]byte
	copy(ms[2:], id[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:]))).UTC() //nolint:gosec // 48 bits
}

// DigestSQL is the statement of [Source.Digest]: from, to, the width of a bucket in milliseconds, and how many at most.
func (s Source) DigestSQL() string {
	open, amount, money, items := "0", "0", "NULL::bigint", "NULL::bigint"
	if s.Open != "" {
		open = "count(*) FILTER (WHERE " + s.Open + ")"
	}
	if s.Amount != "" {
		amount = "coalesce(sum(" + s.Amount + ") FILTER (WHERE " + s.Member + "), 0)::bigint"
	}
	if s.User != "" {
		money = s.xorSQL(contentSQL(s.ID, s.moneySQL()))
	}
	if s.Items != "" {
		items = s.xorSQL(contentSQL(s.ID, ItemsSQL(s.Items)))
	}
	return strings.NewReplacer("{table}", s.Table, "{id}", s.ID, "{member}", s.Member, "{open}", open, "{amount}", amount,
		"{hash}", s.xorSQL("substr(sha256(uuid_send("+s.ID+")), 1, 8)::bigint"), "{money}", money, "{items}", items).Replace(
		`SELECT substr(uuid_send({id}), 1, 6)::bigint / $3::bigint * $3::bigint AS start, count(*), count(*) FILTER (WHERE {member}),
    {hash}, {amount}, {open}, {money}, {items}
FROM {table} WHERE {id} >= $1 AND {id} < $2 GROUP BY 1 ORDER BY 1 LIMIT $4`)
}

// xorSQL is the SQL of the XOR of the members' hashes.
func (s Source) xorSQL(hash string) string {
	return "coalesce(bit_xor(" + hash + ") FILTER (WHERE " + s.Member + "), 0)"
}

// A digest reads all rows of its range: for that, scans and hashing are the right plan, which the pool's settings rule
// out.
var planSQL = []string{
	`SET LOCAL enable_seqscan = on`, `SET LOCAL enable_hashjoin = on`, `SET LOCAL enable_mergejoin = on`, `SET LOCAL plan_cache_mode = force_custom_plan`,
	`SET LOCAL max_parallel_workers_per_gather = 2`,
}

// Digest digests a span in buckets of a width, which are multiples of it since 1970. Empty ones are left out. It
// returns the first 10,001 at most.
func (s Source) Digest(ctx context.Context, db *pgxpool.Pool, span Span, width time.Duration) (buckets []Bucket, err error) {
	err = report(ctx, db, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, s.DigestSQL(), span.From, span.To, max(1, width.Milliseconds()), maxBuckets+1) // the error surfaces in the collector
		buckets, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b Bucket, err error) {
			var hash int64
			var money, items *int64
			err = row.Scan(&b.Start, &b.Rows, &b.Count, &hash, &b.Amount, &b.Open, &money, &items)
			b.Hash = Hex(uint64(hash)) //nolint:gosec // 64 bits
			b.Money, b.Items = digestText(money), digestText(items)
			return b, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("digest what is %s: %w", s.Set, err)
	}
	return buckets, nil
}

// digestText is a hash that a service may not have: then it is empty.
func digestText(hash *int64) string {
	if hash == nil {
		return ""
	}
	return Hex(uint64(*hash)) //nolint:gosec // 64 bits
}

// report runs fn in a transaction whose statements are planned for reading much.
func report(ctx context.Context, db *pgxpool.Pool, fn func(tx pgx.Tx) error) error {
	return pg.InTx(ctx, db, func(tx pgx.Tx) error {
		var plan pgx.Batch
		for _, set := range planSQL {
			plan.Queue(set)
		}
		if err := pg.Defer(ctx, tx, &plan); err != nil {
			return err
		}
		return fn(tx)
	})
}

// Hex is a hash as a [Bucket] has it.
func Hex(hash uint64) string { return fmt.Sprintf("%016x", hash) }

func (s Source) key() string {
	if s.Key != "" {
		return s.Key
	}
	return s.ID
}

// ListSQL is the statement of [Source.List]: from, to, limit.
func (s Source) ListSQL() string {
	return s.Facts + ` WHERE ` + s.key() + ` >= $1 AND ` + s.key() + ` < $2 ORDER BY ` + s.key() + ` LIMIT $3`
}

// GetSQL is the statement of [Source.Get]: ids.
func (s Source) GetSQL() string {
	return s.Facts + ` WHERE ` + s.key() + ` = ANY($1) ORDER BY ` + s.key()
}

// List lists up to limit facts of a span, by id.
func (s Source) List(ctx context.Context, db *pgxpool.Pool, span Span, limit int) ([]Fact, error) {
	return s.read(ctx, db, s.ListSQL(), span.From, span.To, limit)
}

// Get lists what is held of the ids, by id.
func (s Source) Get(ctx context.Context, db *pgxpool.Pool, ids ...uuid.UUID) ([]Fact, error) {
	return s.read(ctx, db, s.GetSQL(), ids)
}

// Of is what is held of one id, as of a transaction that holds something of it.
func (s Source) Of(ctx context.Context, tx pgx.Tx, id uuid.UUID) (Fact, error) {
	rows, _ := tx.Query(ctx, s.GetSQL(), []uuid.UUID{id}) // the error surfaces in the collector
	f, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Fact])
	if err != nil {
		return Fact{}, fmt.Errorf("read whether %s is %s: %w", id, s.Set, err)
	}
	return f, nil
}

func (s Source) read(ctx context.Context, db *pgxpool.Pool, sql string, args ...any) ([]Fact, error) {
	rows, _ := db.Query(ctx, sql, args...) // the error surfaces in the collector
	facts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Fact])
	if err != nil {
		return nil, fmt.Errorf("read what is %s: %w", s.Set, err)
	}
	return facts, nil
}
