package soak

import (
	"fmt"
	"sync"
	"time"
)

// Episode is one fault, from when it was done to when what it broke was back.
type Episode struct {
	Fault string    `json:"fault"`
	On    string    `json:"on"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	Note  string    `json:"note,omitempty"`
	Error string    `json:"error,omitempty"`
}

func (e Episode) String() string {
	s := fmt.Sprintf("%s on %s, %.1f s", e.Fault, e.On, e.End.Sub(e.Start).Seconds())
	if e.Note != "" {
		s += ", " + e.Note
	}
	if e.Error != "" {
		s += ": " + e.Error
	}
	return s
}

// history is what happened when.
type history struct {
	mu       sync.Mutex
	episodes []Episode
}

func (h *history) add(e Episode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.episodes = append(h.episodes, e)
}

func (h *history) all() []Episode {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Episode(nil), h.episodes...)
}

// last is when the last fault was over.
func (h *history) last() (at time.Time) {
	for _, e := range h.all() {
		if e.End.After(at) {
			at = e.End
		}
	}
	return at
}
