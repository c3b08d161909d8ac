package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// ticks is the unit of /proc's CPU times: Linux reports them to programs in hundredths of a second on every
// architecture.
const ticks = 100

// ProcessCPU is the CPU time that a process has used, in seconds; 0 where the system has no /proc.
func ProcessCPU(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, noProc(err)
	}
	seconds, err := cpuOf(b)
	if err != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return seconds, nil
}

// cpuOf reads the CPU time of a stat file of /proc, in seconds.
func cpuOf(stat []byte) (total float64, err error) {
	// The name, in parentheses, may hold anything; utime and stime are the 12th and 13th fields after it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("it has %d fields", len(fields))
	}
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(string(f), 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total / ticks, nil
}

// ThreadCPU is the CPU time that the threads of a process have used whose names contain name, in seconds; 0 where the
// system has no /proc.
func ThreadCPU(pid int, name string) (total float64, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		if end := bytes.LastIndexByte(b, ')'); bytes.Contains(b[:max(end, 0)], []byte(name)) {
			seconds, err := cpuOf(b)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", file, err)
			}
			total += seconds
		}
	}
	return total, nil
}

// PeakMiB is the most memory that a process has had resident, in MiB; 0 where the system has no /proc.
func PeakMiB(pid int) (float64, error) { return memory(pid, "VmHWM:") }

// ResidentMiB is the memory that a process has resident now, in MiB; 0 where the system has no /proc.
func ResidentMiB(pid int) (float64, error) { return memory(pid, "VmRSS:") }

func memory(pid int, field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, noProc(err)
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(field)); ok {
			kb, err := strconv.ParseFloat(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, field)
}

// noProc drops the error of a system without /proc.
func noProc(err error) error {
	if _, statErr := os.Stat("/proc/self/stat"); statErr != nil {
		return nil
	}
	return err
}

// OwnCPU is the CPU time of this process, in seconds.
func OwnCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// MachineCPU is the CPU time that everything on the machine has used, in seconds; 0 where the system has no /proc.
func MachineCPU() (float64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, noProc(err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := bytes.Fields(line) // cpu user nice system idle iowait irq softirq steal
	if len(fields) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var busy float64
	for i, f := range fields[1:9] {
		n, err := strconv.ParseFloat(string(f), 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 {
			busy += n
		}
	}
	return busy / ticks, nil
}
