// Package report holds what was measured against the aims, and writes it as JSON and as tables.
package report

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/rig"
)

// Report is everything that was measured, as it is written to the JSON file.
type Report struct {
	Date     time.Time    `json:"date"`
	Commit   string       `json:"commit"` // with a + if there were changes to it
	Machine  rig.Machine  `json:"machine"`
	Kafka    string       `json:"kafka"`
	Postgres string       `json:"postgres"`
	Options  plan.Options `json:"options"`
	Runs     []ModeRun    `json:"runs"`
	Aims     []Aim        `json:"aims"`
}

// Aim is what the system is meant to reach on a machine of two cores, and whether it did in this run. None of them
// fails a run: only lost or doubled orders do.
type Aim struct {
	What     string  `json:"what"`
	Unit     string  `json:"unit"`
	AtLeast  bool    `json:"atLeast"` // else at most
	Want     float64 `json:"want"`
	Measured float64 `json:"measured"`
	Met      bool    `json:"met"`
}

// ModeRun is one system's run through the scenarios.
type ModeRun struct {
	Mode              plan.Mode `json:"mode"`
	Curve             string    `json:"curve,omitempty"` // what varies from run to run, and its value in this one
	Value             int       `json:"value,omitempty"`
	StartSeconds      float64   `json:"startSeconds"`      // until every instance was ready
	FirstOrderSeconds float64   `json:"firstOrderSeconds"` // until the first order had settled, after that
	StopSeconds       float64   `json:"stopSeconds"`
	Results           []Result  `json:"results"`
}

// Result is what one scenario came to. Orders are those that were placed in its time; each has settled, or is a
// violation.
type Result struct {
	Scenario        string                `json:"scenario"`
	Orders          int                   `json:"orders"`
	Seconds         float64               `json:"seconds"`
	OrdersPerSecond float64               `json:"ordersPerSecond"` // settled within the time; a flood's time is until all have settled
	Failures        int                   `json:"failures"`        // requests without a 202
	Failure         string                `json:"failure,omitempty"`
	Ack             measure.Quantiles     `json:"ackMs"`      // request due to 202 read
	EndToEnd        measure.Quantiles     `json:"endToEndMs"` // request due to terminal event seen in Kafka
	Backlog         int                   `json:"backlog"`    // the most orders at one time that were acknowledged and had not settled
	Stored          measure.Quantiles     `json:"storedMs"`   // order taken to order settled, by the order database
	CPU             map[string]float64    `json:"cpuSecondsPer1000Orders"`
	Cores           map[string]float64    `json:"cores"`      // CPU time used per time
	OtherCores      float64               `json:"otherCores"` // used by what has nothing to do with the run: noise
	PeakMiB         map[string]float64    `json:"peakMiB"`
	Batches         []measure.Batch       `json:"batches"`
	Work            measure.Work          `json:"postgres"`
	Profiles        []measure.Profile     `json:"profiles,omitempty"`
	Memory          []measure.MemoryPoint `json:"memory,omitempty"`
	Disturbances    []measure.Disturbance `json:"disturbances,omitempty"`
	Violations      []string              `json:"violations"`
}

// New returns a report without results.
func New(ctx context.Context, opts plan.Options) *Report {
	return &Report{
		Date: time.Now().UTC().Truncate(time.Second), Commit: rig.Commit(ctx), Options: opts, Kafka: rig.KafkaImage, Postgres: rig.PostgresImage,
		Machine: rig.ThisMachine(),
	}
}

// Violated tells whether a verification failed.
func (r *Report) Violated() bool {
	for _, run := range r.Runs {
		for _, res := range run.Results {
			if len(res.Violations) > 0 {
				return true
			}
		}
	}
	return false
}

// each calls fn for every result under load.
func (r *Report) each(fn func(name string, res *Result)) {
	for _, run := range r.Runs {
		for i := range run.Results {
			if run.Results[i].Scenario != string(plan.Idle) {
				fn(run.name()+" "+run.Results[i].Scenario, &run.Results[i])
			}
		}
	}
}

// name tells the run from the others.
func (r *ModeRun) name() string {
	if r.Curve == "" {
		return string(r.Mode)
	}
	return fmt.Sprintf("%s, %s %d,", r.Mode, r.Curve, r.Value)
}

// base is the run of a mode that is no part of a curve.
func (r *Report) base(mode plan.Mode) *ModeRun {
	for i := range r.Runs {
		if r.Runs[i].Mode == mode && r.Runs[i].Curve == "" {
			return &r.Runs[i]
		}
	}
	return nil
}

func (r *ModeRun) result(scenario string) *Result {
	if r != nil {
		for i := range r.Results {
			if r.Results[i].Scenario == scenario {
				return &r.Results[i]
			}
		}
	}
	return nil
}

// curve returns the runs of a curve by its values.
func (r *Report) curve(name string) []ModeRun {
	return slices.DeleteFunc(slices.Clone(r.Runs), func(run ModeRun) bool { return run.Curve != name })
}

// allCPU is the CPU time of 1,000 orders, without the driver's.
func (r *Result) allCPU() float64 {
	var all float64
	for part, seconds := range r.CPU {
		if part != "driver" {
			all += seconds
		}
	}
	return all
}
