package soak

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// previous is what an upgrade starts from where no tag says it: the last commit before the engine's second schema.
const previous = "b9ba45e"

// buildPrevious builds the services as they were at an earlier commit, into a directory below dir, and returns it and
// the commit.
func buildPrevious(ctx context.Context, dir string, opts *Options) (bins, commit string, err error) {
	git := func(args ...string) ([]byte, error) {
		out, err := exec.CommandContext(ctx, "git", args...).Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		if err != nil {
			return nil, fmt.Errorf("git %s: %w", args[0], err)
		}
		return bytes.TrimSpace(out), nil
	}
	commit = opts.Previous
	if commit == "" {
		commit = previous
		if tag, err := git("describe", "--tags", "--abbrev=0", "HEAD^"); err == nil {
			commit = string(tag)
		}
	}
	root, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return "", commit, err
	}
	source, archive := filepath.Join(dir, "previous"), filepath.Join(dir, "previous.tar")
	if _, err := git("-C", string(root), "archive", "--output", archive, commit); err != nil {
		return "", commit, err
	}
	bins = filepath.Join(dir, "previous-bin")
	if err := errors.Join(os.MkdirAll(source, 0o755), os.MkdirAll(bins, 0o755)); err != nil {
		return "", commit, err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-x", "-C", source, "-f", archive).CombinedOutput(); err != nil {
		return "", commit, fmt.Errorf("unpack commit %s: %w: %s", commit, err, out)
	}
	return bins, commit, rig.BuildIn(ctx, source, bins, []string{"order", "inventory", "payment", "soak"}, opts.flags()...)
}

// withPrevious builds the previous commit's services if a fault needs them. Where they cannot be built, the report says
// why the fault is left out.
func (w *world) withPrevious(ctx context.Context, dir string, report *Report, say func(string, ...any)) {
	if !w.opts.has(rollingUpgrade) {
		return
	}
	bins, commit, err := buildPrevious(ctx, dir, &w.opts)
	w.opts.Previous = commit
	if err == nil {
		w.previous = bins
		say("built the services of commit %s, too", commit)
	} else {
		w.opts.Faults = slices.DeleteFunc(slices.Clone(w.opts.Faults), func(name string) bool { return name == rollingUpgrade })
		report.Notes = append(report.Notes, fmt.Sprintf("%s is left out: commit %s cannot be built: %v", rollingUpgrade, commit, err))
		say("%s", report.Notes[len(report.Notes)-1])
	}
	report.Options = w.opts
}

const rollingUpgrade = "rolling-upgrade"

// upgrade lets an instance of the previous commit join each service, on the schema of this one; later they leave, one
// by one.
func upgrade(ctx context.Context, c *calamity, _ string, rnd *rand.Rand) (note string, err error) {
	w := c.world
	launch := w.launch
	launch.Command = command(w.previous)
	var old []*instance
	defer func() {
		for _, i := range old {
			pause(ctx, between(rnd, time.Second, 3*time.Second))
			err = errors.Join(err, w.leave(i))
		}
	}()
	for _, service := range serviceNames() {
		i, err := w.joinAs(ctx, launch, service)
		if i != nil {
			old = append(old, i)
		}
		if err != nil {
			return "", fmt.Errorf("%s of commit %s beside this one's: %w", service, w.opts.Previous, err)
		}
	}
	pause(ctx, between(rnd, 8*time.Second, 12*time.Second))
	return "commit " + strings.TrimSpace(w.opts.Previous) + " beside this one", nil
}
