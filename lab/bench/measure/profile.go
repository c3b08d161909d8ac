package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/lab/bench/workload"
)

// Profile is where one service spent its CPU time.
type Profile struct {
	Service   string             `json:"service"`
	File      string             `json:"file"`      // for go tool pprof
	Functions []Function         `json:"functions"` // those with most time of their own
	Shares    map[string]float64 `json:"shares"`    // per cent of the CPU time, by what it went to
}

// Profile takes a CPU profile of the first instance of each service over most of the length, and returns a function
// that waits for them.
func (s *System) Profile(ctx context.Context, dir, name string, length time.Duration) (wait func() ([]Profile, error)) {
	seconds := max(1, int(length.Seconds()*0.9))
	var taken []Profile
	var g errgroup.Group
	for _, service := range workload.Services {
		for _, p := range s.Processes {
			if p.Service == service && p.Pprof != "" {
				file := filepath.Join(dir, strings.ReplaceAll(name, ":", "-")+"-"+service+".pprof")
				taken = append(taken, Profile{Service: service, File: file})
				g.Go(func() error {
					return download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.Pprof, seconds), file)
				})
				break
			}
		}
	}
	return func() ([]Profile, error) {
		if err := g.Wait(); err != nil {
			return nil, fmt.Errorf("take a profile: %w", err)
		}
		for i := range taken {
			out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-unit=ms", "-nodecount=100000", "-nodefraction=0", taken[i].File).Output()
			if err != nil {
				return nil, fmt.Errorf("read profile %s: %w", taken[i].File, err)
			}
			all := functions(string(out))
			taken[i].Functions, taken[i].Shares = all[:min(topFunctions, len(all))], shares(all)
		}
		return taken, nil
	}
}

func download(ctx context.Context, url, file string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, res.Body)
	return err
}
