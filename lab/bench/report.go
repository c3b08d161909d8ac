package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// Report is everything that was measured, as it is written to the JSON file.
type Report struct {
	Date     time.Time   `json:"date"`
	Commit   string      `json:"commit"` // with a + if there were changes to it
	Machine  rig.Machine `json:"machine"`
	Kafka    string      `json:"kafka"`
	Postgres string      `json:"postgres"`
	Options  Options     `json:"options"`
	Runs     []ModeRun   `json:"runs"`
	Aims     []Aim       `json:"aims"`
}

// ModeRun is one system's run through the scenarios.
type ModeRun struct {
	Mode              Mode     `json:"mode"`
	Curve             string   `json:"curve,omitempty"` // what varies from run to run, and its value in this one
	Value             int      `json:"value,omitempty"`
	StartSeconds      float64  `json:"startSeconds"`      // until every instance was ready
	FirstOrderSeconds float64  `json:"firstOrderSeconds"` // until the first order had settled, after that
	StopSeconds       float64  `json:"stopSeconds"`
	Results           []Result `json:"results"`
}

// Result is what one scenario came to. Orders are those that were placed in its time; each has settled, or is a violation.
type Result struct {
	Scenario        string             `json:"scenario"`
	Orders          int                `json:"orders"`
	Seconds         float64            `json:"seconds"`
	OrdersPerSecond float64            `json:"ordersPerSecond"` // settled within the time; a flood's time is until all have settled
	Failures        int                `json:"failures"`        // requests without a 202
	Failure         string             `json:"failure,omitempty"`
	Ack             Quantiles          `json:"ackMs"`      // request due to 202 read
	EndToEnd        Quantiles          `json:"endToEndMs"` // request due to terminal event seen in Kafka
	Backlog         int                `json:"backlog"`    // the most orders at one time that were acknowledged and had not settled
	Stored          Quantiles          `json:"storedMs"`   // order taken to order settled, by the order database
	CPU             map[string]float64 `json:"cpuSecondsPer1000Orders"`
	Cores           map[string]float64 `json:"cores"`      // CPU time used per time
	OtherCores      float64            `json:"otherCores"` // used by what has nothing to do with the run: noise
	PeakMiB         map[string]float64 `json:"peakMiB"`
	Batches         []Batch            `json:"batches"`
	Work            Work               `json:"postgres"`
	Profiles        []Profile          `json:"profiles,omitempty"`
	Memory          []MemoryPoint      `json:"memory,omitempty"`
	Disturbances    []Disturbance      `json:"disturbances,omitempty"`
	Violations      []string           `json:"violations"`

	marks []mark
}

// latencies fills in what the driver saw.
func (r *Result) latencies(samples []sample, w window) {
	acks := make([]time.Duration, 0, len(samples))
	ends := make([]time.Duration, 0, len(samples))
	within := 0
	for _, s := range samples {
		acks = append(acks, s.acked.Sub(s.sent))
		if s.settled.IsZero() {
			continue
		}
		ends = append(ends, s.settled.Sub(s.sent))
		if !s.settled.After(w.to) {
			within++
		}
	}
	r.Orders, r.Seconds = len(samples), w.seconds()
	r.OrdersPerSecond = float64(within) / w.seconds()
	r.Ack, r.EndToEnd = quantilesOf(acks), quantilesOf(ends)
	r.Backlog = backlogPeak(samples)
}

// backlogPeak is the most orders that were under way at one time: acknowledged, and not settled.
func backlogPeak(samples []sample) int {
	acked := make([]time.Time, 0, len(samples))
	settled := make([]time.Time, 0, len(samples))
	for _, s := range samples {
		if s.settled.IsZero() {
			acked = append(acked, s.acked)
		} else if s.settled.After(s.acked) { // else its event came before its answer
			acked, settled = append(acked, s.acked), append(settled, s.settled)
		}
	}
	slices.SortFunc(acked, time.Time.Compare)
	slices.SortFunc(settled, time.Time.Compare)
	peak, done := 0, 0
	for i, at := range acked {
		for done < len(settled) && !settled[done].After(at) {
			done++
		}
		peak = max(peak, i+1-done)
	}
	return peak
}

// line is the result in short.
func (r *Result) line() string {
	var b strings.Builder
	switch {
	case r.Scenario == string(Idle):
		for _, part := range parts {
			fmt.Fprintf(&b, "%s %.2f %%  ", part, r.Cores[part]*100)
		}
	case r.Ack == Quantiles{}: // the floor answers nobody
		fmt.Fprintf(&b, "%.0f orders/s", r.OrdersPerSecond)
	default:
		fmt.Fprintf(&b, "%.0f orders/s, ack p50 %.1f p99 %.1f ms, end to end p50 %.1f p99 %.1f ms, stored p50 %.1f p99 %.1f ms",
			r.OrdersPerSecond, r.Ack.P50, r.Ack.P99, r.EndToEnd.P50, r.EndToEnd.P99, r.Stored.P50, r.Stored.P99)
	}
	if r.Backlog > 0 {
		fmt.Fprintf(&b, ", backlog %d at most", r.Backlog)
	}
	if r.OtherCores > 0.1 {
		fmt.Fprintf(&b, "\n  noise: other programs used %.1f cores", r.OtherCores)
	}
	if r.Failures > 0 {
		fmt.Fprintf(&b, "\n  %d requests failed, such as: %s", r.Failures, r.Failure)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "\n  VIOLATED: %s", v)
	}
	return b.String()
}

func newReport(ctx context.Context, opts Options) *Report {
	return &Report{
		Date: time.Now().UTC().Truncate(time.Second), Commit: rig.Commit(ctx), Options: opts, Kafka: rig.KafkaImage, Postgres: rig.PostgresImage,
		Machine: rig.ThisMachine(),
	}
}

func (r *Report) violated() bool {
	for _, run := range r.Runs {
		for _, res := range run.Results {
			if len(res.Violations) > 0 {
				return true
			}
		}
	}
	return false
}

// write writes the JSON, and the tables to their file and to out. The JSON is read back: whoever reads it next must find
// what was measured.
func (r *Report) write(opts Options, out io.Writer) error {
	var text bytes.Buffer
	r.print(&text)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for path, content := range map[string][]byte{opts.JSON: append(b, '\n'), opts.Markdown: text.Bytes()} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	if _, err := out.Write(text.Bytes()); err != nil {
		return err
	}
	return r.readBack(opts.JSON)
}

func (r *Report) readBack(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var read Report
	if err := json.Unmarshal(b, &read); err != nil {
		return fmt.Errorf("read %s back: %w", path, err)
	}
	if len(read.Runs) != len(r.Runs) {
		return fmt.Errorf("%s holds %d of %d runs", path, len(read.Runs), len(r.Runs))
	}
	for i, run := range r.Runs {
		if len(read.Runs[i].Results) != len(run.Results) {
			return fmt.Errorf("%s: %s has %d of %d results", path, run.name(), len(read.Runs[i].Results), len(run.Results))
		}
		for j, res := range run.Results {
			if got := read.Runs[i].Results[j]; got.Scenario != res.Scenario || got.Orders != res.Orders || got.Orders == 0 && got.Scenario != string(Idle) {
				return fmt.Errorf("%s: %s %s has %d orders; %d were measured", path, run.name(), res.Scenario, got.Orders, res.Orders)
			}
		}
	}
	return nil
}
