package soak

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dockerHere tells whether there is Docker to use, as the test kits do. Embedded servers cannot be broken and
// restarted, so without it nothing is.
func dockerHere(t *testing.T) bool {
	t.Helper()
	choice := os.Getenv("CONVERGE_TEST_SERVERS")
	if choice == "docker" || choice == "" && exec.CommandContext(t.Context(), "docker", "info").Run() == nil {
		return true
	}
	t.Log("no Docker: nothing is broken")
	return false
}

// logged writes what a run says into the test's log.
type logged struct{ t *testing.T }

func (l logged) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// atRisk runs the system for a test, and leaves it what the services logged if the test fails.
func atRisk(t *testing.T, opts Options) (*Report, error) {
	t.Helper()
	opts.Dir = t.TempDir()
	opts.Race = withRace
	if withRace { // it costs five to ten times the time and the memory
		opts.Memory, opts.Settle = 1500, 90*time.Second
	}
	report, err := Run(t.Context(), opts, logged{t})
	if err != nil && !errors.Is(err, ErrViolated) {
		t.Fatal(err)
	}
	var text strings.Builder
	report.Print(&text)
	t.Log(text.String())
	return report, err
}

// seedEnv names the environment variable that makes another plan than CI's.
const seedEnv = "CONVERGE_SOAK_SEED"

// seed is the same in every CI run, so that a change is judged by what it does and not by its luck; make soak has new
// ones.
func seed(t *testing.T) uint64 {
	text := cmp.Or(os.Getenv(seedEnv), "1")
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", seedEnv, err)
	}
	return seed
}

// Minutes in which everything breaks, and afterwards everything adds up. make soak has what costs too much here: a
// second broker, and a second build of everything.
func TestSoak(t *testing.T) {
	if !dockerHere(t) {
		return
	}
	cheap := slices.DeleteFunc(FaultNames(), func(name string) bool { return name == "partition-leaderless" || name == rollingUpgrade })
	opts := Options{Seed: seed(t), Duration: 4*time.Minute + 30*time.Second, Rate: 40, Burst: 120, Clients: 16, Faults: cheap}
	if report, err := atRisk(t, opts); err != nil {
		t.Errorf("seed %d: %d violations", opts.Seed, len(report.Violations))
	}
}

// What proves nothing lost must be able to see a loss. Each sabotage breaks one promise in the services themselves; the
// same faults without it break none.
func TestCheckerSeesSabotage(t *testing.T) {
	if !dockerHere(t) {
		return
	}
	for _, tc := range []struct {
		sabotage string
		faults   []string
		on       []string
		rules    []string // one of these has to be seen
	}{
		{"", []string{"kill", "kafka-cut", "commit-cut"}, nil, nil},
		{"skip-inbox", []string{"kill", "commit-cut"}, []string{"witness"}, []string{"the witness has counted an order more than once"}},
		{"early-commit", []string{"kill"}, nil, []string{"an order is not terminal", "the witness has not counted an order that was confirmed"}},
		{"bypass-outbox", []string{"kill", "kafka-cut"}, nil, []string{
			"a state has no inventory.reserved in its topic", "a state has no payment.completed in its topic", "a state has no order.confirmed in its topic",
			"a state has no payment.failed in its topic", "events of one key are missing or out of order",
		}},
	} {
		t.Run("sabotage="+tc.sabotage, func(t *testing.T) {
			report, err := sabotaged(t, tc.sabotage, tc.faults, tc.on, 1)
			if tc.rules == nil {
				if err != nil {
					t.Error("the services are sound, and the checker complains")
				}
				return
			}
			seen := func() bool {
				return slices.ContainsFunc(report.Violations, func(v Violation) bool { return slices.Contains(tc.rules, v.Rule) })
			}
			for again := uint64(2); again <= 3 && !seen(); again++ { // no fault may have come in the one moment that matters
				report, _ = sabotaged(t, tc.sabotage, tc.faults, tc.on, again)
			}
			if !seen() {
				t.Errorf("none of %q is among the violations", tc.rules)
			}
			for _, v := range report.Violations {
				if v.Orders > 0 && len(v.Examples) == 0 {
					t.Errorf("%s comes without a time line", v.Rule)
				}
			}
		})
	}
}

func sabotaged(t *testing.T, sabotage string, faults, on []string, seed uint64) (*Report, error) {
	t.Helper()
	return atRisk(t, Options{
		Seed: seed, Duration: 25 * time.Second, Rate: 80, Clients: 32, Faults: faults, On: on, Sabotage: sabotage, Patience: 15 * time.Second,
	})
}

// A run that is interrupted leaves nothing behind.
func TestInterrupted(t *testing.T) {
	if !dockerHere(t) {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := watchFor{text: "kill on", then: cancel, also: logged{t}}
	_, err := Run(ctx, Options{Seed: 1, Duration: time.Minute, Rate: 20, Faults: []string{"kill"}, Dir: filepath.Join(t.TempDir(), "logs"), Race: withRace}, &said)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	mine := "label=dev.converge.rig=" + hostPID(t)
	out, err := exec.CommandContext(t.Context(), "docker", "ps", "-aq", "--filter", mine).Output()
	if err != nil || len(out) > 0 {
		t.Errorf("containers %q are left, %v", out, err)
	}
}

// watchFor calls then when a text was written.
type watchFor struct {
	text string
	then func()
	also logged
}

func (w *watchFor) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.then()
	}
	return w.also.Write(p)
}

func hostPID(t *testing.T) string {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return host + "/" + strconv.Itoa(os.Getpid())
}
