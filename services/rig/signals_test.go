package rig_test

import (
	"syscall"
	"testing"

	"github.com/converge-dev/converge/services/rig"
)

func TestInterruptible(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			ctx, stop := rig.Interruptible()
			defer stop()
			if err := ctx.Err(); err != nil {
				t.Fatalf("ended before the signal: %v", err)
			}
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			<-ctx.Done()
		})
	}
	t.Run("stopped", func(t *testing.T) {
		ctx, stop := rig.Interruptible()
		stop()
		<-ctx.Done()
	})
}
