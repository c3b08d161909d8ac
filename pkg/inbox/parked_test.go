package inbox_test

import (
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// Parked messages come back bit for bit, in the order of their parking, once however often they are parked, to those
// who have their partition, until they are deleted.
func TestParked(t *testing.T) {
	t.Parallel()
	db, ctx := database(t), t.Context()
	at := time.UnixMilli(1_700_000_000_123).UTC()
	msg := func(partition int, offset int64, lane string) inbox.Parked {
		return inbox.Parked{Place: inbox.Place{Topic: "t", Partition: partition}, Offset: offset, Lane: lane, Key: []byte("\x00\xff"), Value: []byte{0, 1},
			Headers: []inbox.Header{{Name: []byte("h\xff"), Value: []byte{0xff, 0}}, {Name: []byte("empty")}}, Time: at, Attempts: 2, Last: true}
	}
	do := func(fn func(b *pgx.Batch) error) {
		t.Helper()
		if err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
			var b pgx.Batch
			if err := fn(&b); err != nil {
				return err
			}
			return pg.Defer(ctx, tx, &b)
		}); err != nil {
			t.Fatal(err)
		}
	}
	none := msg(0, 9, "\x00none")
	none.Key, none.Value, none.Headers = nil, nil, nil
	do(func(b *pgx.Batch) error {
		return inbox.Park(b, "a", []inbox.Parked{msg(0, 7, "k"), msg(0, 3, "k"), none})
	})
	do(func(b *pgx.Batch) error {
		return inbox.Park(b, "a", []inbox.Parked{msg(0, 3, "k"), msg(1, 1, "k"), msg(0, 8, "k")})
	})
	do(func(b *pgx.Batch) error { return inbox.Park(b, "b", []inbox.Parked{msg(0, 7, "k")}) })

	mine := []inbox.Place{{Topic: "t", Partition: 0}, {Topic: "u", Partition: 1}}
	lanes, err := inbox.ParkedLanes(ctx, db, "a", mine)
	if want := map[string]int{"k": 3, "\x00none": 1}; err != nil || !maps.Equal(lanes, want) {
		t.Errorf("lanes %v, %v; want %v", lanes, err, want)
	}
	want := func(lane string, limit int, want ...inbox.Parked) {
		t.Helper()
		got, err := inbox.NextParked(ctx, db, "a", lane, mine, limit)
		if err != nil || len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("parked %+v, %v; want %+v", got, err, want)
		}
	}
	want("k", 2, msg(0, 7, "k"), msg(0, 3, "k"))
	want("\x00none", 2, none)
	do(func(b *pgx.Batch) error { inbox.Unpark(b, "a", []inbox.Parked{msg(0, 7, "k"), none}); return nil })
	want("k", 9, msg(0, 3, "k"), msg(0, 8, "k"))
	want("\x00none", 9)
	if lanes, err := inbox.ParkedLanes(ctx, db, "b", mine); err != nil || lanes["k"] != 1 {
		t.Errorf("another consumer's: %v, %v", lanes, err)
	}
}
