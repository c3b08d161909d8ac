package rig

import (
	"context"
	"os/signal"
	"syscall"
)

// Interruptible is the context of a command that has containers and processes to clean up. It ends with a signal that asks the
// command to end, and when whoever reads its output leaves or its terminal closes; the second such signal ends the process
// at once. A reader that has left does not, however much is still written.
func Interruptible() (ctx context.Context, stop func()) {
	ctx, read := signal.NotifyContext(context.Background(), syscall.SIGPIPE)
	ctx, stop = signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, func() { stop(); read() }
}
