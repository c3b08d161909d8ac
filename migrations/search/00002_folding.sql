-- +goose Up

-- A query's letters are folded further than those of documents that are here: a final sigma is a sigma, strokes and ligatures are taken off. Without
-- this, what has such letters would not be found before its next version comes or everything is rebuilt, which also finds tokens with signs exactly.
UPDATE documents SET
    folded = translate(replace(replace(replace(folded, 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe'), 'ςıøłđħ', 'σioldh'),
    grams = ARRAY(SELECT DISTINCT translate(g, 'ς', 'σ') FROM unnest(grams) AS g)
WHERE folded ~ '[ςßæœıøłđħ]';

-- +goose Down

-- The folding cannot be undone, and need not be: the columns are what they were. A rebuild folds everything anew.
SELECT 1;
