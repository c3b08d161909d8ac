package facts

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/web"
)

// Shown is what a read side shows of the things of one owner, such as search of inventory's products. Owner and read
// side both declare it, each of its own table, and so both digest the same: of each thing its id, its version, and the
// texts in Text, in the same order. A thing is in one of [ShownBuckets] buckets by its id. All but Of are SQL of the
// service's own, never input.
type Shown struct {
	Of      string   // what the things are, alike on both sides, such as "products"
	Table   string   // of the rows, one per thing
	Where   string   // condition: the row is one; empty: each is
	ID      string   // the column of the ids, a text with an index in the order of its bytes
	Version string   // the column of the versions, a bigint
	Text    []string // what is shown, as expressions; what only one side has is left out
}

// ShownBuckets is how many buckets things are digested in: by the first byte of the SHA-256 of the id.
const ShownBuckets = 256

// ShownBucket digests the things whose ids fall into it.
type ShownBucket struct {
	Bucket int    `json:"bucket" doc:"the first byte of the SHA-256 of the ids in it"`
	Count  int64  `json:"count"`
	Hash   string `json:"hash" doc:"XOR of the hashes of its things"`
}

// ShownThing is one thing as an owner holds it, or as a read side shows it.
type ShownThing struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
	Hash    string `json:"hash" doc:"of its id, its version and what is shown of it: the first 8 bytes of a SHA-256, in hexadecimal"`
}

// hashSQL hashes a row: each text with its length in bytes before it, so that no two rows have one text; of NULL, a
// minus.
func (s Shown) hashSQL() string {
	parts := make([]string, 0, len(s.Text)+2)
	for _, e := range append([]string{s.ID, s.Version}, s.Text...) {
		parts = append(parts, `coalesce(octet_length((`+e+`)::text) || ':' || (`+e+`)::text, '-')`)
	}
	return `substr(sha256(convert_to(` + strings.Join(parts, ` || ' ' || `) + `, 'UTF8')), 1, 8)::bigint`
}

func (s Shown) bucketSQL() string { return `get_byte(sha256(convert_to(` + s.ID + `, 'UTF8')), 0)` }

func (s Shown) where() string {
	if s.Where == "" {
		return "true"
	}
	return s.Where
}

// DigestSQL is the statement of [Shown.Digest].
func (s Shown) DigestSQL() string {
	return `SELECT ` + s.bucketSQL() + `, count(*), coalesce(bit_xor(` + s.hashSQL() + `), 0) FROM ` + s.Table + ` WHERE ` + s.where() + ` GROUP BY 1 ORDER BY 1`
}

// Digest digests all things. Buckets in which there is nothing are left out.
func (s Shown) Digest(ctx context.Context, db *pgxpool.Pool) (buckets []ShownBucket, err error) {
	err = report(ctx, db, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, s.DigestSQL()) // the error surfaces in the collector
		buckets, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (b ShownBucket, err error) {
			var hash int64
			err = row.Scan(&b.Bucket, &b.Count, &hash)
			b.Hash = Hex(uint64(hash)) //nolint:gosec // 64 bits
			return b, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("digest the %s: %w", s.Of, err)
	}
	return buckets, nil
}

// ListSQL is the statement of [Shown.List]: after, buckets, limit. It goes by the index of the ids, so that a page
// reads what it shows, and what is in other buckets between.
func (s Shown) ListSQL() string {
	return `SELECT ` + s.ID + `, ` + s.Version + `, ` + s.hashSQL() + ` FROM ` + s.Table + ` WHERE ` + s.where() + ` AND ` + s.ID + ` COLLATE "C" > $1
    AND ` + s.bucketSQL() + ` = ANY($2::int[]) ORDER BY ` + s.ID + ` COLLATE "C" LIMIT $3`
}

// List lists up to limit things of some buckets whose ids come after one, in the order of the ids' bytes.
func (s Shown) List(ctx context.Context, db *pgxpool.Pool, buckets []int, after string, limit int) ([]ShownThing, error) {
	rows, _ := db.Query(ctx, s.ListSQL(), after, buckets, limit) // the error surfaces in the collector
	things, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t ShownThing, err error) {
		var hash int64
		err = row.Scan(&t.ID, &t.Version, &hash)
		t.Hash = Hex(uint64(hash)) //nolint:gosec // 64 bits
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the %s: %w", s.Of, err)
	}
	return things, nil
}

// The answers, as they are read at the other end.
type (
	// ShownDigest is the answer to GET /facts/documents/digest.
	ShownDigest struct {
		Of      string        `json:"of" example:"products"`
		Buckets []ShownBucket `json:"buckets" nullable:"false" doc:"without those that are empty"`
	}
	// ShownThings is the answer to GET /facts/documents.
	ShownThings struct {
		Of     string       `json:"of" example:"products"`
		Things []ShownThing `json:"things" nullable:"false" doc:"by id, in the order of its bytes"`
		Next   string       `json:"next,omitempty" doc:"after, of the next page; none after the last one"`
	}
)

type (
	// OfQuery is exported because huma passes over what it embeds otherwise.
	OfQuery struct {
		Of string `query:"of" required:"true" minLength:"1" maxLength:"100" pattern:"^[a-z-]*$" patternDescription:"small letters" example:"products" doc:"what to tell of"`
	}
	shownDigestInput struct{ OfQuery }
	shownListInput   struct {
		OfQuery
		Bucket []int  `query:"bucket" required:"true" minItems:"1" maxItems:"256" minimum:"0" maximum:"255" nullable:"false" doc:"of which buckets, with commas between"`
		After  string `query:"after" maxLength:"256" pattern:"^[^\\x00]*$" patternDescription:"text without a zero character" doc:"next of the page before; none: from the first one on"`
		Limit  int    `query:"limit" default:"1000" minimum:"1" maximum:"1000"`
	}
)

// RegisterShown adds the operations that tell what is held, or shown, of things with versions to an API, with the one
// that tells how far the service is, for a service that has nothing else to tell. [Server.Register] adds them, too.
func (s Server) RegisterShown(api huma.API) {
	s.registerFlow(api)
	s.registerDocuments(api)
}

func (s Server) registerDocuments(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "digest-documents", Method: http.MethodGet, Path: "/facts/documents/digest", Summary: "Digest what is held, or shown, of things with versions",
		Description: "In 256 buckets by the id. Who holds things and who shows them digest the same of each, so that the two can be compared.",
		Errors:      []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.digestShown)
	huma.Register(api, huma.Operation{
		OperationID: "list-documents", Method: http.MethodGet, Path: "/facts/documents", Summary: "List the things of some buckets, with their versions and hashes",
		Errors: []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.listShown)
}

// shown is what is told of something by that name.
func (s Server) shown(of string) (Shown, error) {
	names := make([]string, len(s.Shown))
	for i, one := range s.Shown {
		if names[i] = one.Of; one.Of == of {
			return one, nil
		}
	}
	return Shown{}, web.Invalid(web.Field("query.of", "expected "+strings.Join(names, " or "), of))
}

func (s Server) digestShown(ctx context.Context, in *shownDigestInput) (*struct{ Body ShownDigest }, error) {
	ctx, cancel := s.untilStop(ctx)
	defer cancel()
	one, err := s.shown(in.Of)
	if err != nil {
		return nil, err
	}
	buckets, err := one.Digest(ctx, s.DB)
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	return &struct{ Body ShownDigest }{ShownDigest{one.Of, buckets}}, nil
}

func (s Server) listShown(ctx context.Context, in *shownListInput) (*struct{ Body ShownThings }, error) {
	ctx, cancel := s.untilStop(ctx)
	defer cancel()
	one, err := s.shown(in.Of)
	if err != nil {
		return nil, err
	}
	things, err := one.List(ctx, s.DB, in.Bucket, in.After, in.Limit+1)
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	out := ShownThings{Of: one.Of, Things: things}
	if len(things) > in.Limit {
		out.Things, out.Next = things[:in.Limit], things[in.Limit-1].ID
	}
	return &struct{ Body ShownThings }{out}, nil
}
