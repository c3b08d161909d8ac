package search

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/readside"
)

// Documents come in the order of kinds and ids, each once, so that two transactions wait for each other in one direction.
// Their grams come as JSON: unnest takes an array of arrays apart to the last element.
const saveSQL = `INSERT INTO documents AS old (generation, kind, id, version, title, detail, price, currency, stock, folded, grams)
SELECT g, d.kind, d.id, d.version, d.title, d.detail, d.price, d.currency, d.stock, d.folded,
    ARRAY(SELECT jsonb_array_elements_text(d.grams))
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::jsonb[])
    WITH ORDINALITY AS d (kind, id, version, title, detail, price, currency, stock, folded, grams, n)
CROSS JOIN generations_of($1) AS g
ORDER BY g, d.n
ON CONFLICT (generation, kind, id) DO UPDATE SET version = excluded.version, title = excluded.title, detail = excluded.detail,
    price = excluded.price, currency = excluded.currency, stock = excluded.stock, folded = excluded.folded, grams = excluded.grams
WHERE old.version < excluded.version`

// save writes documents down where they are newer than what is there.
func save(ctx context.Context, tx pgx.Tx, to readside.Target, docs []Document) error {
	n := len(docs)
	kinds, ids, versions, titles, details := make([]string, n), make([]string, n), make([]int64, n), make([]string, n), make([]string, n)
	prices, currencies, stocks := make([]*int64, n), make([]*string, n), make([]*string, n)
	foldeds, grams := make([]string, n), make([]string, n)
	for i, d := range docs {
		kinds[i], ids[i], versions[i], titles[i], details[i] = string(d.Kind), d.ID, d.Version, d.Title, d.Detail
		prices[i], currencies[i], stocks[i] = d.Price, d.Currency, d.Stock
		foldeds[i] = d.folded()
		text, err := json.Marshal(append([]string{}, parse(foldeds[i], true).grams...))
		if err != nil {
			return err
		}
		grams[i] = string(text)
	}
	var b pgx.Batch
	b.Queue(saveSQL, int64(to), kinds, ids, versions, titles, details, prices, currencies, stocks, foldeds, grams)
	if err := pg.Defer(ctx, tx, &b); err != nil {
		return fmt.Errorf("save %d documents: %w", n, err)
	}
	return nil
}

// pg_trgm's default of 0.6 misses a word with two letters swapped.
const thresholdSQL = `SELECT set_config('pg_trgm.word_similarity_threshold', '0.35', true)`

// Each way to find something goes by its own index, and by it alone: with a condition on the generation PostgreSQL would rather
// read all of that. What is misspelt is looked for where nothing fits literally: among what does, it is noise. An id comes first, then
// all words or their beginnings or all letters of another script, sooner before later in the text, which begins with the title.
const findSQL = `WITH anywhere AS MATERIALIZED (
    SELECT generation, kind, id FROM documents WHERE words @@ to_tsquery('simple', $2)
    UNION SELECT generation, kind, id FROM documents WHERE grams @> $4
    UNION SELECT generation, kind, id FROM documents WHERE generation = (SELECT serving_generation()) AND kind = ANY($1) AND id = $5
), literal AS MATERIALIZED (
    SELECT * FROM anywhere WHERE generation = (SELECT serving_generation()) AND kind = ANY($1)
), hits AS MATERIALIZED (
    SELECT * FROM literal
    UNION ALL SELECT generation, kind, id FROM documents WHERE $3 <> '' AND NOT EXISTS (SELECT FROM literal) AND $3 <% folded
)
SELECT kind, id, version, title, detail, price, currency, stock
FROM hits JOIN documents USING (generation, kind, id)
WHERE generation = (SELECT serving_generation()) AND kind = ANY($1)
ORDER BY (id = $5)::int * 4 + (words @@ to_tsquery('simple', $2))::int * 2 + (grams @> $4)::int * 2
    + word_similarity($3, folded) + COALESCE(1.0 / NULLIF(strpos(folded, $6), 0), 0) DESC, length(title), kind, id
LIMIT $7`

// find returns what fits a query, what fits best first.
func find(ctx context.Context, db *pgxpool.Pool, q query, kinds []Kind, limit int) (docs []Document, err error) {
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(thresholdSQL)
		if err := pg.Defer(ctx, tx, &b); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, findSQL, kinds, q.prefixes, q.misspelt, q.grams, q.id, q.folded, limit) // the error surfaces in the collector
		docs, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Document])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	return docs, nil
}

const reachedSQL = `SELECT EXISTS (SELECT FROM documents WHERE generation = (SELECT serving_generation()) AND kind = $1 AND id = $2 AND version >= $3)`

// reached tells how to look whether a document of the kind is here in a version or a later one.
func reached(db *pgxpool.Pool, kind Kind) readside.Reached {
	return func(ctx context.Context, id string, version int64) (ok bool, err error) {
		if err = db.QueryRow(ctx, reachedSQL, kind, id, version).Scan(&ok); err != nil {
			err = fmt.Errorf("look for version %d of %s %s: %w", version, kind, id, err)
		}
		return ok, err
	}
}
