package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/testcontainers/testcontainers-go/exec"
)

const ballast = dataDir + "/ballast"

// Fill leaves the server's volume, which has to be a small one, no room at all.
func (s *Server) Fill(ctx context.Context) error {
	_, err := s.inVolume(ctx, "cat /dev/zero >"+ballast+" 2>/dev/null || test -s "+ballast)
	return err
}

// Free gives the room back.
func (s *Server) Free(ctx context.Context) error {
	_, err := s.inVolume(ctx, "rm -f "+ballast)
	return err
}

// Sizes are the lengths, in bytes, of log segments by path.
type Sizes map[string]int64

// Sizes notes how long the logs of topics are, which has to be a forgetful broker's. The broker may be running: a batch
// that is being written may then be in them in part.
func (s *Server) Sizes(ctx context.Context, topics []string) (Sizes, error) {
	out, err := s.inVolume(ctx, "cd "+kafkaDir+" && stat -c '%s %n' */*.log")
	if err != nil {
		return nil, err
	}
	sizes := Sizes{}
	for line := range strings.Lines(out) {
		size, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		partition := path.Dir(file)
		if end := strings.LastIndexByte(partition, '-'); end < 0 || !slices.Contains(topics, partition[:end]) {
			continue
		}
		if sizes[file], err = strconv.ParseInt(size, 10, 64); err != nil {
			return nil, fmt.Errorf("read the lengths of %s's logs: %w", s.Name, err)
		}
	}
	return sizes, nil
}

// CutBack makes the logs of topics as long as they were, and returns how many bytes are gone. The broker has to have
// been killed: only then does it look at the logs' ends when it starts, drop what is left of a batch, and make new
// indexes.
func (s *Server) CutBack(ctx context.Context, topics []string, was Sizes) (lost int64, err error) {
	is, err := s.Sizes(ctx, topics)
	if err != nil {
		return 0, err
	}
	commands := []string{"cd " + kafkaDir}
	for _, file := range slices.Sorted(maps.Keys(is)) {
		size, known := was[file]
		lost += max(0, is[file]-size)
		segment := strings.TrimSuffix(file, ".log")
		switch {
		case !known: // begun since
			commands = append(commands, "rm -f "+segment+".*")
		case is[file] > size:
			commands = append(commands, fmt.Sprintf("truncate -s %d %s", size, file), fmt.Sprintf("rm -f %[1]s.index %[1]s.timeindex", segment))
		}
	}
	_, err = s.inVolume(ctx, strings.Join(commands, " && "))
	return lost, err
}

// inVolume runs a command where the server's volume is, whether or not the server runs, and returns what it wrote.
func (s *Server) inVolume(ctx context.Context, command string) (string, error) {
	if s.holder == nil {
		return "", fmt.Errorf("%s has no volume of its own", s.Name)
	}
	code, r, err := s.holder.Exec(ctx, []string{"sh", "-c", command}, exec.Multiplexed())
	if err != nil {
		return "", fmt.Errorf("change the volume of %s: %w", s.Name, err)
	}
	out, err := io.ReadAll(r)
	if err != nil || code != 0 {
		return "", errors.Join(err, fmt.Errorf("change the volume of %s: code %d: %s", s.Name, code, out))
	}
	return string(out), nil
}
