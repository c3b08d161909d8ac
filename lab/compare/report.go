package compare

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

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/markdown"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/verify"
	"github.com/converge-dev/converge/lab/rig"
)

// Comparison is everything that was measured, as it is written to the JSON file.
type Comparison struct {
	Date     time.Time   `json:"date"`
	Commit   string      `json:"commit"` // with a + if there were changes to it
	Machine  rig.Machine `json:"machine"`
	Kafka    string      `json:"kafka"`
	Postgres string      `json:"postgres"`
	Options  Options     `json:"options"`
	Results  []Compared  `json:"results"`
}

// Compared is what one scenario came to for one design.
type Compared struct {
	Scenario           string            `json:"scenario"`
	Design             Design            `json:"design"`
	Offered            int               `json:"offered"`
	Accepted           int               `json:"accepted"`             // answered with an order
	Failed             int               `json:"failed"`               // answered otherwise, or not at all
	Failure            string            `json:"failure,omitempty"`    // the commonest
	Failures           int               `json:"failures,omitempty"`   // that were of this kind
	Confirmed          int               `json:"confirmed"`            // in the end, whoever was told
	Untold             int               `json:"confirmedAndUntold"`   // confirmed though the client got no order
	ConfirmedPerSecond float64           `json:"confirmedPerSecond"`   // within the time of the load
	Answer             measure.Quantiles `json:"answerMs"`             // request due to answer, whatever it was
	Settled            measure.Quantiles `json:"settledMs"`            // request due to CONFIRMED in the order database, of accepted orders
	Left               Tally             `json:"leftInconsistent"`     // when nothing has changed any more
	Reconciled         *Tally            `json:"reconciled,omitempty"` // after a reconciliation; the system has none
}

// count fills in what clients saw, and when the orders were confirmed.
func (r *Compared) count(visits []visit, confirmed map[uuid.UUID]time.Time, w driver.Window) {
	var answers, ends []time.Duration
	told := map[uuid.UUID]struct{}{}
	failures := map[string]int{}
	r.Offered = len(visits)
	for _, v := range visits {
		if !v.answered.IsZero() {
			answers = append(answers, v.answered.Sub(v.due))
		}
		if v.order == uuid.Nil {
			r.Failed++
			if failures[v.failure]++; failures[v.failure] > r.Failures || failures[v.failure] == r.Failures && v.failure < r.Failure {
				r.Failure, r.Failures = v.failure, failures[v.failure]
			}
			continue
		}
		r.Accepted++
		told[v.order] = struct{}{}
		if at, ok := confirmed[v.order]; ok {
			ends = append(ends, at.Sub(v.due))
		}
	}
	within := 0
	for _, at := range confirmed {
		if !at.After(w.To) {
			within++
		}
	}
	r.Confirmed, r.Untold = len(confirmed), len(verify.Minus(confirmed, told))
	r.ConfirmedPerSecond = float64(within) / w.Seconds()
	r.Answer, r.Settled = measure.QuantilesOf(answers), measure.QuantilesOf(ends)
}

// line is the result in short.
func (r *Compared) line() string {
	line := fmt.Sprintf("%d offered, %d accepted, %d confirmed, %.0f/s, answer p50 %.1f p99 %.1f ms, settled p50 %.1f p99 %.1f ms, left inconsistent %s",
		r.Offered, r.Accepted, r.Confirmed, r.ConfirmedPerSecond, r.Answer.P50, r.Answer.P99, r.Settled.P50, r.Settled.P99, r.Left)
	if r.Failed > 0 {
		line += fmt.Sprintf("\n  %d failed, %d of them: %s", r.Failed, r.Failures, r.Failure)
	}
	return line
}

func newComparison(ctx context.Context, opts Options) *Comparison {
	return &Comparison{
		Date: time.Now().UTC().Truncate(time.Second), Commit: rig.Commit(ctx), Machine: rig.ThisMachine(),
		Kafka: rig.KafkaImage, Postgres: rig.PostgresImage, Options: opts,
	}
}

// violated tells whether the system has left anything inconsistent.
func (c *Comparison) violated() bool {
	for _, r := range c.Results {
		if r.Design == Converge && r.Left.Orders > 0 {
			return true
		}
	}
	return false
}

// print writes the table as Markdown, the two designs of a scenario one below the other.
func (c *Comparison) print(w io.Writer) {
	fmt.Fprintf(w, "%s, commit %s, %d cores (%s), %s, %s, %s; %g orders/s offered; up to %d database connections for each synchronous service\n",
		c.Date.Format("2006-01-02"), c.Commit, c.Machine.Cores, c.Machine.CPU, c.Machine.Go, c.Kafka, c.Postgres, c.Options.Rate, c.Options.Connections)
	markdown.Table(w, "Answer: request due to answer, in ms, whatever it was. Settled: request due to CONFIRMED in the order database, of accepted orders. "+
		"Untold: confirmed though the client got an error or no answer. Left: orders between two states when nothing changed any more; reconciled: after the reconciliation.",
		"scenario", "design", "offered", "accepted", "failed", "confirmed", "confirmed/s", "answer p50", "p99", "settled p50", "p99", "untold", "left inconsistent", "reconciled")
	var scenarios []string
	for _, r := range c.Results {
		if !slices.Contains(scenarios, r.Scenario) {
			scenarios = append(scenarios, r.Scenario)
		}
	}
	for _, scenario := range scenarios {
		for _, r := range c.Results {
			if r.Scenario == scenario {
				markdown.Row(w, r.cells()...)
			}
		}
	}
}

func (r *Compared) cells() []string {
	whole := func(n int) string { return markdown.Num(float64(n), 0) }
	failed, reconciled := whole(r.Failed), ""
	if r.Failed > 0 {
		failed += fmt.Sprintf(" (%d: %s)", r.Failures, strings.ReplaceAll(r.Failure, "|", `\|`))
	}
	if r.Reconciled != nil {
		reconciled = r.Reconciled.String()
	}
	return []string{
		r.Scenario, string(r.Design), whole(r.Offered), whole(r.Accepted), failed, whole(r.Confirmed), markdown.Num(r.ConfirmedPerSecond, 0),
		markdown.Num(r.Answer.P50, 1), markdown.Num(r.Answer.P99, 1), markdown.Num(r.Settled.P50, 1), markdown.Num(r.Settled.P99, 1), whole(r.Untold), r.Left.String(), reconciled,
	}
}

// write writes the JSON, and the table to its file and to out.
func (c *Comparison) write(opts Options, out io.Writer) error {
	var text bytes.Buffer
	c.print(&text)
	b, err := json.MarshalIndent(c, "", "  ")
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
	_, err = out.Write(text.Bytes())
	return err
}
