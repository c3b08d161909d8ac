package measure

import (
	"fmt"
	"sync"

	"github.com/converge-dev/converge/lab/rig"
)

// MemoryPoint is what one instance of each service had resident after so many orders, in MiB.
type MemoryPoint struct {
	Orders int                `json:"orders"`
	MiB    map[string]float64 `json:"mib"`
}

// MemorySeries takes a point before the first order and after every quarter of them.
type MemorySeries struct {
	mu     sync.Mutex
	points []MemoryPoint
	err    error
}

// Take takes a point. It may be called from several goroutines.
func (m *MemorySeries) Take(processes []*rig.Process, orders int) {
	point := MemoryPoint{Orders: orders, MiB: map[string]float64{}}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range processes {
		mib, err := rig.ResidentMiB(p.PID())
		if err != nil {
			m.err = fmt.Errorf("memory of %s: %w", p.Service, err)
		}
		point.MiB[p.Service] = max(point.MiB[p.Service], mib)
	}
	m.points = append(m.points, point)
}

// Points returns what was taken, in its order. An error is that of a process whose memory could not be read.
func (m *MemorySeries) Points() ([]MemoryPoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.points, m.err
}

// PeakMemory is the most that one instance of each service has had resident since its start, in MiB.
func (s *System) PeakMemory() (map[string]float64, error) {
	out := map[string]float64{}
	for _, p := range s.Processes {
		mib, err := rig.PeakMiB(p.PID())
		if err != nil {
			return nil, fmt.Errorf("memory of %s: %w", p.Service, err)
		}
		out[p.Service] = max(out[p.Service], mib)
	}
	return out, nil
}
