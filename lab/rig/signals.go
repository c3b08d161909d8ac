package rig

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Terminal is what a command that has containers and processes to clean up is run from. Its context ends with a signal
// that asks the command to end, and when whoever reads its output has left; the second such signal ends the process at
// once. A reader that has left does not, however much is still written.
type Terminal struct {
	Context  context.Context
	Out, Err io.Writer // standard output and standard error
	stop     func()
}

// Interruptible returns the terminal of this process, to be released when the command is done.
func Interruptible() *Terminal {
	// Ignored, and not asked for: who asks for it gets it for every connection that breaks, too.
	signal.Ignore(syscall.SIGPIPE)
	readers, leave := context.WithCancel(context.Background())
	ctx, stopSignals := signal.NotifyContext(readers, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stopSignals)
	return &Terminal{
		Context: ctx, Out: reader{os.Stdout, leave}, Err: reader{os.Stderr, leave},
		stop: func() { stopSignals(); leave(); signal.Reset(syscall.SIGPIPE) },
	}
}

// Release lets signals do to the process what they do to any, and ends the context.
func (t *Terminal) Release() { t.stop() }

// reader is somebody who may leave.
type reader struct {
	io.Writer
	left func()
}

func (r reader) Write(p []byte) (int, error) {
	n, err := r.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		r.left()
	}
	return n, err
}
