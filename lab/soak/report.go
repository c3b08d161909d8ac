package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/rig"
)

// Report is what a run did and found.
type Report struct {
	Date     time.Time   `json:"date"`
	Commit   string      `json:"commit"`
	Machine  rig.Machine `json:"machine"`
	Kafka    string      `json:"kafka"`
	Postgres string      `json:"postgres"`
	Options  Options     `json:"options"`

	Seconds        float64  `json:"seconds"` // of load and faults
	Load           counts   `json:"load"`
	Checks         int      `json:"checks"` // that the system's own checker made
	Stored         int      `json:"stored"`
	Confirmed      int      `json:"confirmed"`
	Cancelled      int      `json:"cancelled"`
	Duplicates     int      `json:"duplicateRecords"` // events that are in their topics more than once
	Poison         int      `json:"poison"`
	DeadLetters    int      `json:"deadLetters"`
	Notes          []string `json:"notes,omitempty"` // what was asked for and could not be done, and why
	SettledSeconds float64  `json:"settledSeconds"`  // from the end of load and faults until nothing was under way any more

	Kinds      []Kind             `json:"faults"`
	Episodes   []Episode          `json:"history"`
	PeakMiB    map[string]float64 `json:"peakMiB"`
	Violations []Violation        `json:"violations"`

	ended time.Time
}

// Kind sums up the faults of one name.
type Kind struct {
	Fault   string  `json:"fault"`
	Times   int     `json:"times"`
	Seconds float64 `json:"seconds"`           // in all, from when it was done to when what it broke was back
	Longest float64 `json:"longestStandstill"` // seconds without any order settling, with this fault going on
	Resumed float64 `json:"slowestResumption"` // -1: never seen; seconds from when what it broke was back until an order settled, with no other fault in between
}

func newReport(ctx context.Context, opts Options) *Report {
	return &Report{
		Date: time.Now().UTC().Truncate(time.Second), Commit: rig.Commit(ctx), Machine: rig.ThisMachine(), Kafka: rig.KafkaImage, Postgres: rig.PostgresImage,
		Options: opts, Violations: []Violation{},
	}
}

// measured notes what came of the load and the faults.
func (r *Report) measured(w *world, c counts, h *history, began, settled time.Time) {
	r.Load, r.Episodes = c, h.all()
	r.ended = began.Add(w.opts.Duration)
	if last := h.last(); last.After(r.ended) {
		r.ended = last
	}
	r.Seconds, r.SettledSeconds = r.ended.Sub(began).Seconds(), settled.Sub(r.ended).Seconds()
	w.mu.Lock()
	r.PeakMiB = maps.Clone(w.peaks)
	w.mu.Unlock()
}

// judged notes what the checker saw.
func (r *Report) judged(f *facts, h *history, found []Violation) {
	r.Checks = f.checks
	r.Stored, r.Poison, r.DeadLetters = len(f.orders), len(f.poisoned), len(f.dead)
	for _, o := range f.orders {
		switch o.Status {
		case "CONFIRMED":
			r.Confirmed++
		case "CANCELLED":
			r.Cancelled++
		}
	}
	for _, byOrder := range f.topics {
		for _, records := range byOrder {
			ids := map[uuid.UUID]bool{}
			for _, one := range records {
				ids[one.id] = true
			}
			r.Duplicates += len(records) - len(ids)
		}
	}
	r.Kinds = kinds(h.all(), f.settledAt(), r.ended)
	r.Violations = append(r.Violations, found...)
}

// kinds sums up episodes.
func kinds(episodes []Episode, settled []time.Time, end time.Time) []Kind {
	byName := map[string]*Kind{}
	for _, e := range episodes {
		k := byName[e.Fault]
		if k == nil {
			k = &Kind{Fault: e.Fault, Resumed: -1}
			byName[e.Fault] = k
		}
		k.Times++
		k.Seconds += e.End.Sub(e.Start).Seconds()
		k.Longest = max(k.Longest, standstill(settled, e.Start, e.End, end).Seconds())
		if after, ok := resumption(e, episodes, settled, end); ok {
			k.Resumed = max(k.Resumed, after.Seconds())
		}
	}
	var all []Kind
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all
}

// resumption is how long nothing settled after a fault was over, unless another fault, or the end of the load, may be
// why.
func resumption(e Episode, episodes []Episode, settled []time.Time, end time.Time) (time.Duration, bool) {
	i, _ := slices.BinarySearchFunc(settled, e.End, time.Time.Compare)
	if i == len(settled) || settled[i].After(end) {
		return 0, false
	}
	for _, other := range episodes {
		if other != e && other.Start.Before(settled[i]) && other.End.After(e.End) {
			return 0, false
		}
	}
	return settled[i].Sub(e.End), true
}

// standstill is the longest time between two orders that settled, of which some lies between from and to. After end no
// order is placed, so none need settle.
func standstill(settled []time.Time, from, to, end time.Time) (longest time.Duration) {
	i, _ := slices.BinarySearchFunc(settled, from, time.Time.Compare)
	for before := from; ; i++ {
		if i > 0 {
			before = settled[i-1]
		}
		if before.After(to) || !before.Before(end) {
			return longest
		}
		if i == len(settled) {
			return max(longest, end.Sub(before))
		}
		longest = max(longest, settled[i].Sub(before))
	}
}

// left are the faults that were asked for and never came.
func (r *Report) left() []string {
	var left []string
	for _, name := range r.Options.Faults {
		if !slices.ContainsFunc(r.Kinds, func(k Kind) bool { return k.Fault == name }) {
			left = append(left, name)
		}
	}
	return left
}

func (r *Report) write(jsonPath, markdownPath string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var text strings.Builder
	r.Print(&text)
	return errors.Join(writeFile(jsonPath, append(b, '\n')), writeFile(markdownPath, []byte(text.String())))
}

func writeFile(path string, b []byte) error {
	if path == "" {
		return nil
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644))
}

// Print writes the report as Markdown, to be read, and to be pasted into a document.
func (r *Report) Print(w io.Writer) {
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	verdict := "No violation."
	if n := len(r.Violations); n > 0 {
		verdict = fmt.Sprintf("**%d promises broken.**", n)
	}
	line("%s, commit %s, seed %d; %d cores (%s), %s, %s, %s. %s\n", r.Date.Format(time.DateOnly), r.Commit, r.Options.Seed,
		r.Machine.Cores, r.Machine.CPU, r.Machine.Go, r.Kafka, r.Postgres, verdict)
	line("| | |\n| --- | --- |")
	line("| again | `%s` |", r.Options.command())
	load := fmt.Sprintf("%.0f s at %g orders/s", r.Seconds, r.Options.Rate)
	if r.Options.has("kafka-away") {
		load += fmt.Sprintf(", %g orders/s while Kafka is away for long", r.Options.Burst)
	}
	line("| load and faults | %s, %d clients |", load, r.Options.Clients)
	line("| orders placed | %d |", r.Load.Placed)
	line("| acknowledged with 202 | %d |", r.Load.Acked)
	line("| sent without a key and not answered | %d |", r.Load.Unknown)
	line("| sent again under their keys | %d times |", r.Load.Retries)
	line("| cancelled by their users | %d |", r.Load.Cancels)
	line("| money sent to another user | %d times |", r.Load.Transfers)
	line("| stored | %d: %d confirmed, %d cancelled |", r.Stored, r.Confirmed, r.Cancelled)
	line("| events published more than once, and recognised | %d |", r.Duplicates)
	line("| poison, dead letters | %d, %d |", r.Poison, r.DeadLetters)
	line("| checks by the system's own checker | %d |", r.Checks)
	line("| from the end of load and faults until all was settled | %.1f s, of %s at most |", r.SettledSeconds, r.Options.Settle)
	var peaks []string
	for _, service := range slices.Sorted(maps.Keys(r.PeakMiB)) {
		peaks = append(peaks, fmt.Sprintf("%s %.0f", service, r.PeakMiB[service]))
	}
	line("| most memory, MiB | %s |", strings.Join(peaks, ", "))
	line("\n| fault | times | seconds in all | longest time without any order settling, s | after its end until an order settled, at most, s |")
	line("| --- | ---: | ---: | ---: | ---: |")
	for _, k := range r.Kinds {
		resumed := "–"
		if k.Resumed >= 0 {
			resumed = fmt.Sprintf("%.1f", k.Resumed)
		}
		line("| %s | %d | %.0f | %.1f | %s |", k.Fault, k.Times, k.Seconds, k.Longest, resumed)
	}
	line("\nA standstill counts for every fault that was going on in it. –: another fault came before an order settled.")
	if left := r.left(); len(left) > 0 {
		line("\n**Not injected, for want of time: %s.**", strings.Join(left, ", "))
	}
	for _, note := range r.Notes {
		line("\n**%s**", note)
	}
	for _, v := range r.Violations {
		line("\n**%s**", v)
		for _, detail := range v.Details[:min(len(v.Details), 10)] {
			line("\n```\n%s\n```", strings.TrimSpace(detail))
		}
		for _, example := range v.Examples {
			line("\n```\n%s```", example)
		}
	}
}
