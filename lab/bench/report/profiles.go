package report

import (
	"io"
	"slices"

	"github.com/converge-dev/converge/lab/bench/markdown"
	"github.com/converge-dev/converge/lab/bench/measure"
)

// printProfiles shows where each service's CPU time went, in all and by function.
func (r *Report) printProfiles(w io.Writer) {
	if !slices.ContainsFunc(r.Runs, func(run ModeRun) bool {
		return slices.ContainsFunc(run.Results, func(s Result) bool { return len(s.Profiles) > 0 })
	}) {
		return
	}
	markdown.Table(w, "What the services' CPU time went to, in per cent of each profile.", append([]string{"run", "service"}, measure.Causes[:]...)...)
	r.each(func(name string, s *Result) {
		for _, p := range s.Profiles {
			cells := []string{name, p.Service}
			for _, c := range measure.Causes {
				cells = append(cells, markdown.Num(p.Shares[c], 0))
			}
			markdown.Row(w, cells...)
		}
	})
	r.each(func(name string, s *Result) {
		for _, p := range s.Profiles {
			markdown.Table(w, "The functions of "+p.Service+" with most CPU time of their own, "+name+" (`"+p.File+"`).", "function", "own ms", "own %", "with what it called %")
			for _, f := range p.Functions {
				markdown.Row(w, "`"+f.Name+"`", markdown.Num(f.OwnMS, 0), markdown.Num(f.Own, 1), markdown.Num(f.Total, 1))
			}
		}
	})
}
