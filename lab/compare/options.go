// Package compare holds the system against the synchronous design. Both go through the same load and the same faults;
// what each leaves between two states is counted from the databases.
package compare

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/converge-dev/converge/lab/bench/synchronous"
)

// Options say how to hold the system against the synchronous design.
type Options struct {
	Rate        float64       `json:"rate"`        // orders per second, whatever becomes of them
	Length      time.Duration `json:"nanoseconds"` // of a scenario; and how long payment is down
	Connections int           `json:"connections"` // of each synchronous service to its database
	Smoke       bool          `json:"smoke"`       // only to see that everything works
	Seed        uint64        `json:"seed"`
	Dir         string        `json:"-"` // for what the services log
	JSON        string        `json:"-"`
	Markdown    string        `json:"-"`
}

// Defaults are what `make compare` measures.
func Defaults() Options {
	dir := filepath.Join(".data", "compare")
	return Options{
		Rate: 100, Length: 20 * time.Second, Connections: synchronous.Connections, Seed: 1,
		Dir: dir, JSON: filepath.Join(dir, "compare.json"), Markdown: filepath.Join(dir, "compare.md"),
	}
}

func (o *Options) validate() error {
	if o.Smoke {
		o.Length, o.Rate = smokeLength, smokeRate
	}
	if o.Rate <= 0 || o.Length < time.Second || o.Connections < 1 {
		return fmt.Errorf("rate %g, duration %s, %d connections: want more than 0, a second at least, and 1 at least", o.Rate, o.Length, o.Connections)
	}
	return nil
}

const (
	smokeLength = time.Second
	smokeRate   = 50
)

// Design is what is compared. Its value is the name in reports.
type Design string

// Converge is the system. Synchronous is the design that calls and waits, see package synchronous.
const (
	Converge    Design = "converge"
	Synchronous Design = "synchronous"
)
