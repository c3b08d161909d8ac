//go:build faults

package clock

import (
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
)

const offsetEnv = "CONVERGE_CLOCK_OFFSET"

// offset is read once: a clock that is wrong stays as wrong as it is for as long as its process lives.
var offset = sync.OnceValue(func() time.Duration {
	text := os.Getenv(offsetEnv)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(offsetEnv + ": " + err.Error())
	}
	return d
})

// Now is time.Now, put off.
func Now() time.Time { return time.Now().Add(offset()) }

func shiftID(id uuid.UUID) uuid.UUID { return shifted(id, offset()) }
