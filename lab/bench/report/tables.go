package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/converge-dev/converge/lab/bench/markdown"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/workload"
)

// print writes the report as Markdown.
func (r *Report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s, commit %s, %d cores (%s), %s, %s, %s; %d PostgreSQL server(s), %d partitions, seed %d\n",
		r.Date.Format("2006-01-02"), r.Commit, r.Machine.Cores, r.Machine.CPU, r.Machine.Go, r.Kafka, r.Postgres,
		r.Options.Servers, r.Options.Partitions, r.Options.Seed)
	r.printGiven(w)
	r.printAims(w)
	r.printLatencies(w)
	r.printComparison(w)
	r.printCurves(w)
	r.printSeries(w)
	r.printCPU(w)
	r.printWork(w)
	r.printBatches(w)
	r.printStatements(w)
	r.printProfiles(w)
	for _, run := range r.Runs {
		fmt.Fprintf(w, "\n%s: started in %.1f s, first order settled %.1f s later, stopped in %.1f s\n", run.name(), run.StartSeconds, run.FirstOrderSeconds, run.StopSeconds)
		for _, res := range run.Results {
			if res.Failures > 0 {
				fmt.Fprintf(w, "\n%s, %s: %d requests failed, such as: %s\n", run.Mode, res.Scenario, res.Failures, res.Failure)
			}
			for _, v := range res.Violations {
				fmt.Fprintf(w, "\n%s, %s: VIOLATED: %s\n", run.Mode, res.Scenario, v)
			}
		}
	}
}

// printGiven shows what was given on the command line that holds for every run.
func (r *Report) printGiven(w io.Writer) {
	if len(r.Options.Env) > 0 {
		fmt.Fprintf(w, "\nSettings: `%s`\n", strings.Join(r.Options.Env, "`, `"))
	}
	if n := r.Options.Instances; len(n) == 1 {
		fmt.Fprintf(w, "\n%d instance(s) of each service\n", n[0])
	}
	if n := r.Options.Stored; len(n) == 1 {
		fmt.Fprintf(w, "\n%d orders stored before\n", n[0])
	}
}

func (r *Report) printLatencies(w io.Writer) {
	markdown.Table(w, "Throughput and latency in ms. Ack: request due to 202. End to end: request due to terminal event seen by the driver. "+
		"Stored: order taken to order settled, by the order database. Backlog: the most orders at one time that were acknowledged and not settled; "+
		"a flood's orders/s count until the last of them has settled.",
		"run", "orders/s", "orders", "backlog", "ack p50", "p99", "end to end p50", "p99", "max", "stored p50", "p99")
	r.each(func(name string, s *Result) {
		if (s.Ack == measure.Quantiles{}) { // the floor answers nobody
			markdown.Row(w, name, markdown.Num(s.OrdersPerSecond, 0), markdown.Num(float64(s.Orders), 0), "", "", "", "", "", "", "", "")
			return
		}
		markdown.Row(w, name, markdown.Num(s.OrdersPerSecond, 0), markdown.Num(float64(s.Orders), 0), markdown.Num(float64(s.Backlog), 0), markdown.Num(s.Ack.P50, 1), markdown.Num(s.Ack.P99, 1),
			markdown.Num(s.EndToEnd.P50, 1), markdown.Num(s.EndToEnd.P99, 1), markdown.Num(s.EndToEnd.Max, 0), markdown.Num(s.Stored.P50, 1), markdown.Num(s.Stored.P99, 1))
	})
}

// printComparison holds the system against the usual way under the same load, and against the floor.
func (r *Report) printComparison(w io.Writer) {
	results := map[plan.Mode][]Result{}
	for _, run := range r.curve("") {
		results[run.Mode] = run.Results
	}
	if len(results[plan.Converge]) == 0 || len(results[plan.Naive])+len(results[plan.SQLFloor]) == 0 {
		return
	}
	markdown.Table(w, "Compared.", "what", "converge", "other", "ratio")
	compare := func(what, unit string, own, other float64) {
		ratio := markdown.Num(own/other, 1) + " ×"
		if own < other {
			ratio = markdown.Num(own/other*100, 0) + " %"
		}
		markdown.Row(w, what, markdown.Num(own, 1)+unit, markdown.Num(other, 1)+unit, ratio)
	}
	for _, own := range results[plan.Converge] {
		for _, other := range results[plan.Naive] {
			if other.Scenario != own.Scenario {
				continue
			}
			if fullLoad(own.Scenario) {
				compare(own.Scenario+", orders/s, usual", "", own.OrdersPerSecond, other.OrdersPerSecond)
			}
			if strings.HasPrefix(own.Scenario, string(plan.Flood)) {
				continue // how long an order takes in a flood depends on how many the flood has
			}
			compare(own.Scenario+", end to end p50, usual", " ms", own.EndToEnd.P50, other.EndToEnd.P50)
			compare(own.Scenario+", end to end p99, usual", " ms", own.EndToEnd.P99, other.EndToEnd.P99)
		}
		if !fullLoad(own.Scenario) {
			continue
		}
		for _, other := range results[plan.SQLFloor] {
			compare(own.Scenario+", orders/s, floor in "+other.Scenario, "", own.OrdersPerSecond, other.OrdersPerSecond)
		}
	}
}

// fullLoad says whether a scenario asks for as many orders as the system can settle.
func fullLoad(scenario string) bool {
	kind, _, _ := strings.Cut(scenario, ":")
	return kind == string(plan.Closed) || kind == string(plan.Flood)
}

func (r *Report) printCPU(w io.Writer) {
	columns := append([]string{"run"}, measure.Parts[:]...)
	markdown.Table(w, "CPU seconds per 1,000 orders; idle: per cent of a core; the peak memory of an instance in MiB; and the cores that other programs took.",
		append(columns, "all", "order MiB", "inventory MiB", "payment MiB", "noise")...)
	for _, run := range r.Runs {
		for _, s := range run.Results {
			show := func(v float64) string { return markdown.Num(v, 3) }
			used := s.CPU
			if s.Scenario == string(plan.Idle) {
				show = func(v float64) string { return markdown.Num(v*100, 1) + " %" }
				used = s.Cores
			}
			cells, all := []string{run.name() + " " + s.Scenario}, 0.0
			for _, part := range measure.Parts {
				all += used[part]
				cells = append(cells, show(used[part]))
			}
			cells = append(cells, show(all))
			for _, service := range workload.Services {
				cells = append(cells, markdown.Num(s.PeakMiB[service], 0))
			}
			markdown.Row(w, append(cells, markdown.Num(s.OtherCores, 2))...)
		}
	}
}

func (r *Report) printWork(w io.Writer) {
	markdown.Table(w, "PostgreSQL's work per order. Round trips: what the services sent before they waited for an answer, counted by the kernel.", "run", "transactions", "round trips", "round trips/transaction", "statements", "statements/transaction", "WAL bytes", "WAL syncs")
	r.each(func(name string, s *Result) {
		n := float64(max(1, s.Orders))
		trips, perTransaction := "", ""
		if s.Work.RoundTrips > 0 {
			trips, perTransaction = markdown.Num(float64(s.Work.RoundTrips)/n, 3), markdown.Num(float64(s.Work.RoundTrips)/float64(max(1, s.Work.Transactions)), 1)
		}
		markdown.Row(w, name, markdown.Num(float64(s.Work.Transactions)/n, 3), trips, perTransaction, markdown.Num(float64(s.Work.Statements)/n, 3),
			markdown.Num(float64(s.Work.Statements)/float64(max(1, s.Work.Transactions)), 1), markdown.Num(float64(s.Work.WALBytes)/n, 0), markdown.Num(float64(s.Work.WALSyncs)/n, 3))
	})
}

func (r *Report) printBatches(w io.Writer) {
	markdown.Table(w, "Batches: messages in one transaction of a consumer, events in one publication of a relay.",
		"run", "who", "batches", "average", "handler ms", "duplicates", "retries")
	r.each(func(name string, s *Result) {
		for _, b := range s.Batches {
			markdown.Row(w, name, b.Who, markdown.Num(b.Transactions, 0), markdown.Num(b.Average, 1), markdown.Num(b.HandlerMS, 2), markdown.Num(b.Duplicates, 0), markdown.Num(b.Retries, 0))
		}
	})
}

// sqlShown is how much of a statement a table shows.
const sqlShown = 110

func (r *Report) printStatements(w io.Writer) {
	markdown.Table(w, "Statements that PostgreSQL spent most time on.", "run", "database", "calls", "rows/call", "mean ms", "total s", "statement")
	r.each(func(name string, s *Result) {
		for _, st := range s.Work.Top {
			sql := strings.ReplaceAll(st.SQL, "|", `\|`)
			if len(sql) > sqlShown {
				sql = sql[:sqlShown] + "…"
			}
			markdown.Row(w, name, st.Database, markdown.Num(float64(st.Calls), 0), markdown.Num(st.Rows, 1), markdown.Num(st.MeanMS, 3), markdown.Num(st.TotalMS/1000, 2), "`"+sql+"`")
		}
	})
}
