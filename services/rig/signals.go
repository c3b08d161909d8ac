package rig

import (
	"context"
	"os/signal"
	"syscall"
)

// Interruptible is the context of a command that has containers and processes to clean up. It ends with a signal that asks the
// command to end, and when whoever reads its output leaves or its terminal closes; the second such signal ends the process
// at once. A reader that has left does not, however much is still written. Stop is called once, when the command is done.
func Interruptible() (_ context.Context, stop func()) {
	readers, stopReaders := signal.NotifyContext(context.Background(), syscall.SIGPIPE)
	ctx, stopSignals := signal.NotifyContext(readers, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stopSignals)
	return ctx, func() { stopSignals(); stopReaders() }
}
