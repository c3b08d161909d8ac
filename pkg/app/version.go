package app

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// version is what `git describe` says of the source, as the Makefile and the Dockerfile set it at the link.
var version string

// Version names the source that this binary was built from: its tag or commit, with "-dirty" where it was changed
// since. A binary of `go build` alone has the commit, and one of `go test` or `go run` is "dev".
func Version() string {
	if version != "" {
		return version
	}
	revision, dirty := revision()
	switch {
	case revision == "":
		return "dev"
	case dirty:
		return short(revision) + "-dirty"
	default:
		return short(revision)
	}
}

func short(revision string) string { return revision[:min(12, len(revision))] }

// revision is the commit that the go command stamped into the binary, empty if it did not.
func revision() (commit string, dirty bool) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", false
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	return commit, dirty
}

// newBuildInfo is a gauge that is always 1: its labels tell a process's source.
func newBuildInfo() prometheus.Collector {
	commit, _ := revision()
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "converge_build_info",
		Help:        "Always 1; the labels tell what the process was built from.",
		ConstLabels: prometheus.Labels{"version": Version(), "revision": commit, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}
