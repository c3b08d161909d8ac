package search

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/readside"
)

// Documents come in the order of kinds and ids, each once, so that two transactions wait for each other in one
// direction. Their grams come as JSON: unnest takes an array of arrays apart to the last element.
const saveSQL = `INSERT INTO documents AS old (generation, kind, id, version, title, detail, price, currency, stock, folded, grams)
SELECT g, d.kind, d.id, d.version, d.title, d.detail, d.price, d.currency, d.stock, d.folded,
    ARRAY(SELECT jsonb_array_elements_text(d.grams))
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::jsonb[])
    WITH ORDINALITY AS d (kind, id, version, title, detail, price, currency, stock, folded, grams, n)
CROSS JOIN generations_of($1) AS g
ORDER BY g, d.n
ON CONFLICT (generation, kind, id) DO UPDATE SET version = excluded.version, title = excluded.title, detail = excluded.detail,
    price = excluded.price, currency = excluded.currency, stock = excluded.stock, folded = excluded.folded, grams = excluded.grams
WHERE old.version <= excluded.version`

// save writes documents down where they are newer than what is there. Of equal versions the one that came later stays:
// a key's records are in order, and in a rebuild, too, but for what comes while its partition is read again. The same
// record once more writes the same.
func save(ctx context.Context, tx pgx.Tx, to readside.Target, docs []Document) error {
	n := len(docs)
	kinds, ids, versions, titles, details := make([]string, n), make([]string, n), make([]int64, n), make([]string, n), make([]string, n)
	prices, currencies, stocks := make([]*int64, n), make([]*string, n), make([]*string, n)
	foldeds, grams := make([]string, n), make([]string, n)
	for i, d := range docs {
		kinds[i], ids[i], versions[i], titles[i], details[i] = string(d.Kind), d.ID, d.Version, d.Title, d.Detail
		prices[i], currencies[i], stocks[i] = d.Price, d.Currency, d.Stock
		t, entire := d.searched()
		parts, err := json.Marshal(slices.Concat(t.grams, t.signed, entire))
		if err != nil {
			return err
		}
		foldeds[i], grams[i] = t.folded, string(parts)
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

// candidates bounds how many documents each way to find something takes out of the table. What fits more exactly has a
// way of its own, so the best are among them however many fit.
const candidates = 500

// Each way to find something goes by its own index, and by it alone: with an indexed condition on the generation
// PostgreSQL would rather read all of that, so that one is hidden from the planner. Where there are letters beyond
// ASCII, all else is a condition on what has them.
//
// What is misspelt ($8) is looked for where nothing that fits fills the answer, and has to be more alike where
// something fits: among that, what is only a little alike is noise. An id comes first, then an entire title or id,
// tokens with signs, entire words, beginnings of words or letters of another script, and what is misspelt; among equals
// sooner before later in the text, which begins with the title.
const findSQL = `WITH literal AS MATERIALIZED (
    SELECT kind, id FROM documents WHERE generation = (SELECT serving_generation()) AND kind = ANY($1) AND id = $2
    UNION (SELECT kind, id FROM documents WHERE grams @> $3 AND generation + 0 = (SELECT serving_generation()) AND kind || '' = ANY($1) LIMIT $11)
    UNION (SELECT kind, id FROM documents WHERE grams @> $4 AND generation + 0 = (SELECT serving_generation()) AND kind || '' = ANY($1)
        AND ($6::text = '' OR words @@ $6::text::tsquery) LIMIT $11)
    UNION (SELECT kind, id FROM documents WHERE $7::text[] = '{""}' AND words @@ $5::text::tsquery AND generation + 0 = (SELECT serving_generation())
        AND kind || '' = ANY($1) LIMIT $11)
    UNION (SELECT kind, id FROM documents WHERE $7::text[] = '{""}' AND words @@ $6::text::tsquery AND generation + 0 = (SELECT serving_generation())
        AND kind || '' = ANY($1) LIMIT $11)
    UNION (SELECT kind, id FROM documents WHERE grams @> $7 AND generation + 0 = (SELECT serving_generation()) AND kind || '' = ANY($1)
        AND ($6::text = '' OR words @@ $6::text::tsquery) LIMIT $11)
), hits AS MATERIALIZED (
    SELECT kind, id, true AS fits FROM literal
    UNION ALL (SELECT kind, id, false FROM documents WHERE $8 <> '' AND (SELECT count(*) FROM literal) < $10 AND $8 <% folded
        AND word_similarity($8, folded) >= CASE WHEN EXISTS (SELECT FROM literal) THEN 0.5 ELSE 0 END
        AND generation + 0 = (SELECT serving_generation()) AND kind || '' = ANY($1) AND ($7::text[] = '{""}' OR grams @> $7)
        AND NOT EXISTS (SELECT FROM literal WHERE literal.kind = documents.kind AND literal.id = documents.id) LIMIT $11)
)
SELECT kind, id, version, title, detail, price, currency, stock
FROM hits JOIN documents USING (kind, id)
WHERE generation = (SELECT serving_generation())
ORDER BY id = $2 DESC, grams @> $3 DESC, grams @> $4 DESC, words @@ $5::text::tsquery DESC, fits DESC,
    word_similarity($8, folded) + COALESCE(1.0 / NULLIF(strpos(folded, $9), 0), 0) DESC, length(title), kind, id
LIMIT $10`

// args are those of findSQL.
func (q query) args(kinds []Kind, limit int) []any {
	return []any{kinds, q.id, q.entire, q.signed, q.whole, q.prefixes, q.grams, q.misspelt, q.folded, limit, candidates}
}

// find returns what fits a query, what fits best first.
func find(ctx context.Context, db *pgxpool.Pool, q query, kinds []Kind, limit int) (docs []Document, err error) {
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(thresholdSQL)
		if err := pg.Defer(ctx, tx, &b); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, findSQL, q.args(kinds, limit)...) // the error surfaces in the collector
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
