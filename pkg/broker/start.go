package broker

import "time"

// StartAt is where a group begins in a partition in which it has never been. The zero StartAt is [FromBeginning].
type StartAt struct {
	now  bool
	time time.Time
}

// FromBeginning is with the first record that there is.
func FromBeginning() StartAt { return StartAt{} }

// FromNow is with what is written from now on.
func FromNow() StartAt { return StartAt{now: true} }

// FromTime is with the first record that was written at t or later.
func FromTime(t time.Time) StartAt { return StartAt{time: t} }
