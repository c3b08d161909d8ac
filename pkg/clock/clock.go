// Package clock gives events their times and ids. It is the machine's clock, unless the build has the tag faults: then
// CONVERGE_CLOCK_OFFSET, such as -1h, puts it off, so that a test can run services whose clocks disagree.
package clock

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// NewID is a UUIDv7 of this moment.
func NewID() uuid.UUID { return shiftID(uuid.Must(uuid.NewV7())) }

// shifted moves the time of a UUIDv7, its first 48 bits of milliseconds, and keeps the rest.
func shifted(id uuid.UUID, by time.Duration) uuid.UUID {
	var b [8]byte
	copy(b[2:], id[:6])
	binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])+uint64(by.Milliseconds()))
	copy(id[:6], b[2:])
	return id
}
