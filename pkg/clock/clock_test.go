package clock

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestNewIDIsOfThisMoment(t *testing.T) {
	before := Now().UnixMilli()
	id := NewID()
	sec, nsec := id.Time().UnixTime()
	if at := time.Unix(sec, nsec).UnixMilli(); at < before || at > Now().UnixMilli() || id.Version() != 7 {
		t.Errorf("%s is of %d, made at %d", id, at, before)
	}
}

func TestShiftedMovesTheTimeAlone(t *testing.T) {
	id := uuid.Must(uuid.NewV7())
	for _, by := range []time.Duration{0, time.Hour, -time.Hour, -1500 * time.Millisecond} {
		got := shifted(id, by)
		a, _ := id.Time().UnixTime()
		b, _ := got.Time().UnixTime()
		if d := time.Duration(b-a) * time.Second; (d-by).Abs() >= 2*time.Second || [10]byte(got[6:]) != [10]byte(id[6:]) {
			t.Errorf("%s shifted by %s is %s", id, by, got)
		}
	}
	if got := shifted(shifted(id, time.Hour), -time.Hour); got != id {
		t.Errorf("there and back: %s, not %s", got, id)
	}
}
