package bench

import (
	"fmt"
	"io"
	"strings"
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

// each calls fn for every result under load.
func (r *Report) each(fn func(name string, res *Result)) {
	for _, run := range r.Runs {
		for i := range run.Results {
			if run.Results[i].Scenario != string(Idle) {
				fn(run.name()+" "+run.Results[i].Scenario, &run.Results[i])
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

// name tells the run from the others.
func (r *ModeRun) name() string {
	if r.Curve == "" {
		return string(r.Mode)
	}
	return fmt.Sprintf("%s, %s %d,", r.Mode, r.Curve, r.Value)
}

func table(w io.Writer, title string, columns ...string) {
	fmt.Fprintf(w, "\n%s\n\n", title)
	row(w, columns...)
	cells := []string{"---"}
	for range columns[1:] {
		cells = append(cells, "--:")
	}
	row(w, cells...)
}

func row(w io.Writer, cells ...string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }

func num(v float64, digits int) string { return fmt.Sprintf("%.*f", digits, v) }

func (r *Report) printLatencies(w io.Writer) {
	table(w, "Throughput and latency in ms. Ack: request due to 202. End to end: request due to terminal event seen by the driver. "+
		"Stored: order taken to order settled, by the order database. Backlog: the most orders at one time that were acknowledged and not settled; "+
		"a flood's orders/s count until the last of them has settled.",
		"run", "orders/s", "orders", "backlog", "ack p50", "p99", "end to end p50", "p99", "max", "stored p50", "p99")
	r.each(func(name string, s *Result) {
		if (s.Ack == Quantiles{}) { // the floor answers nobody
			row(w, name, num(s.OrdersPerSecond, 0), num(float64(s.Orders), 0), "", "", "", "", "", "", "", "")
			return
		}
		row(w, name, num(s.OrdersPerSecond, 0), num(float64(s.Orders), 0), num(float64(s.Backlog), 0), num(s.Ack.P50, 1), num(s.Ack.P99, 1),
			num(s.EndToEnd.P50, 1), num(s.EndToEnd.P99, 1), num(s.EndToEnd.Max, 0), num(s.Stored.P50, 1), num(s.Stored.P99, 1))
	})
}

// printComparison holds the system against the usual way under the same load, and against the floor.
func (r *Report) printComparison(w io.Writer) {
	results := map[Mode][]Result{}
	for _, run := range r.curve("") {
		results[run.Mode] = run.Results
	}
	if len(results[Converge]) == 0 || len(results[Usual])+len(results[Floor]) == 0 {
		return
	}
	table(w, "Compared.", "what", "converge", "other", "ratio")
	compare := func(what, unit string, own, other float64) {
		ratio := num(own/other, 1) + " ×"
		if own < other {
			ratio = num(own/other*100, 0) + " %"
		}
		row(w, what, num(own, 1)+unit, num(other, 1)+unit, ratio)
	}
	for _, own := range results[Converge] {
		for _, other := range results[Usual] {
			if other.Scenario != own.Scenario {
				continue
			}
			if fullLoad(own.Scenario) {
				compare(own.Scenario+", orders/s, usual", "", own.OrdersPerSecond, other.OrdersPerSecond)
			}
			if strings.HasPrefix(own.Scenario, string(Flood)) {
				continue // how long an order takes in a flood depends on how many the flood has
			}
			compare(own.Scenario+", end to end p50, usual", " ms", own.EndToEnd.P50, other.EndToEnd.P50)
			compare(own.Scenario+", end to end p99, usual", " ms", own.EndToEnd.P99, other.EndToEnd.P99)
		}
		if !fullLoad(own.Scenario) {
			continue
		}
		for _, other := range results[Floor] {
			compare(own.Scenario+", orders/s, floor in "+other.Scenario, "", own.OrdersPerSecond, other.OrdersPerSecond)
		}
	}
}

// fullLoad says whether a scenario asks for as many orders as the system can settle.
func fullLoad(scenario string) bool {
	kind, _, _ := strings.Cut(scenario, ":")
	return kind == string(Closed) || kind == string(Flood)
}

func (r *Report) printCPU(w io.Writer) {
	columns := append([]string{"run"}, parts[:]...)
	table(w, "CPU seconds per 1,000 orders; idle: per cent of a core; the peak memory of an instance in MiB; and the cores that other programs took.",
		append(columns, "all", "order MiB", "inventory MiB", "payment MiB", "noise")...)
	for _, run := range r.Runs {
		for _, s := range run.Results {
			show := func(v float64) string { return num(v, 3) }
			used := s.CPU
			if s.Scenario == string(Idle) {
				show = func(v float64) string { return num(v*100, 1) + " %" }
				used = s.Cores
			}
			cells, all := []string{run.name() + " " + s.Scenario}, 0.0
			for _, part := range parts {
				all += used[part]
				cells = append(cells, show(used[part]))
			}
			cells = append(cells, show(all))
			for _, service := range serviceNames {
				cells = append(cells, num(s.PeakMiB[service], 0))
			}
			row(w, append(cells, num(s.OtherCores, 2))...)
		}
	}
}

func (r *Report) printWork(w io.Writer) {
	table(w, "PostgreSQL's work per order. Round trips: what the services sent before they waited for an answer, counted by the kernel.", "run", "transactions", "round trips", "round trips/transaction", "statements", "statements/transaction", "WAL bytes", "WAL syncs")
	r.each(func(name string, s *Result) {
		n := float64(max(1, s.Orders))
		trips, perTransaction := "", ""
		if s.Work.RoundTrips > 0 {
			trips, perTransaction = num(float64(s.Work.RoundTrips)/n, 3), num(float64(s.Work.RoundTrips)/float64(max(1, s.Work.Transactions)), 1)
		}
		row(w, name, num(float64(s.Work.Transactions)/n, 3), trips, perTransaction, num(float64(s.Work.Statements)/n, 3),
			num(float64(s.Work.Statements)/float64(max(1, s.Work.Transactions)), 1), num(float64(s.Work.WALBytes)/n, 0), num(float64(s.Work.WALSyncs)/n, 3))
	})
}

func (r *Report) printBatches(w io.Writer) {
	table(w, "Batches: messages in one transaction of a consumer, events in one publication of a relay.",
		"run", "who", "batches", "average", "handler ms", "duplicates", "retries")
	r.each(func(name string, s *Result) {
		for _, b := range s.Batches {
			row(w, name, b.Who, num(b.Transactions, 0), num(b.Average, 1), num(b.HandlerMS, 2), num(b.Duplicates, 0), num(b.Retries, 0))
		}
	})
}

// sqlShown is how much of a statement a table shows.
const sqlShown = 110

func (r *Report) printStatements(w io.Writer) {
	table(w, "Statements that PostgreSQL spent most time on.", "run", "database", "calls", "rows/call", "mean ms", "total s", "statement")
	r.each(func(name string, s *Result) {
		for _, st := range s.Work.Top {
			sql := strings.ReplaceAll(st.SQL, "|", `\|`)
			if len(sql) > sqlShown {
				sql = sql[:sqlShown] + "…"
			}
			row(w, name, st.Database, num(float64(st.Calls), 0), num(st.Rows, 1), num(st.MeanMS, 3), num(st.TotalMS/1000, 2), "`"+sql+"`")
		}
	})
}
