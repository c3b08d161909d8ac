package order

// The last row of a full slice is returned for its id even if it is not PENDING.
const overdueSQL = `SELECT id, status = 'PENDING', n = $3 FROM (
    SELECT id, status, row_number() OVER (ORDER BY id) AS n FROM orders WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3
) AS o WHERE status = 'PENDING' OR n = $3 ORDER BY id`

// A place is never stored, nor taken, that is younger by the database's clock than orders of the walk's age: an
// instance whose clock is ahead walks past orders that are yet to come, and no other may follow it there. Instances
// that walk at the same time only move it on.
const (
	readSweepsSQL = `SELECT s.walk, least(s.upto, now() - w.age)
FROM unnest($1::text[], $2::interval[]) AS w (walk, age) JOIN sweeps s ON s.walk = w.walk`

	keepSweepSQL = `INSERT INTO sweeps AS s (walk, upto) VALUES ($1, least($2::timestamptz, now() - $3::interval))
ON CONFLICT (walk) DO UPDATE SET upto = excluded.upto WHERE s.upto < excluded.upto`
)
