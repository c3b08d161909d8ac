package rig

import (
	"os"
	"testing"
)

func TestOwnUsage(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Log("this system has no /proc: zeros are right")
	}
	began := OwnCPU()
	for OwnCPU()-began < 0.05 {
	}
	cpu, err := ProcessCPU(os.Getpid())
	if err != nil || noProc(os.ErrNotExist) != nil && (cpu < began || cpu > OwnCPU()+0.02) {
		t.Errorf("%.2f s by /proc, %v; %.2f s by getrusage", cpu, err, OwnCPU())
	}
	machine, err := MachineCPU()
	if err != nil || machine < cpu {
		t.Errorf("the machine has used %.2f s, %v; less than this process alone", machine, err)
	}
	mib, err := PeakMiB(os.Getpid())
	if err != nil || noProc(os.ErrNotExist) != nil && (mib < 1 || mib > 10_000) {
		t.Errorf("peak memory %.1f MiB, %v", mib, err)
	}
}
