package rig_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/converge-dev/converge/lab/rig"
)

// A process of its own is the command here: signals and standard output are all of a process's.
func TestInterruptible(t *testing.T) {
	if os.Getenv("RIG_TEST_COMMAND") != "" {
		command()
		os.Exit(0)
	}
	for _, tt := range []struct {
		name, says string
		meanwhile  func(cmd *exec.Cmd, in io.Closer, out *os.File) error
	}{
		{"it is done", "released\n", func(_ *exec.Cmd, in io.Closer, _ *os.File) error { return in.Close() }},
		{"it is interrupted", "ended\n", func(cmd *exec.Cmd, _ io.Closer, _ *os.File) error { return cmd.Process.Signal(syscall.SIGINT) }},
		{"its reader leaves", "ended\n", func(_ *exec.Cmd, _ io.Closer, out *os.File) error { return out.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			out, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			var said strings.Builder
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestInterruptible$")
			cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "RIG_TEST_COMMAND=yes"), write, &said
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := write.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatalf("it does not work: %v; it said %q", err, said.String())
			}
			if err := tt.meanwhile(cmd, in, out); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, out)
			if err := cmd.Wait(); err != nil || said.String() != tt.says {
				t.Errorf("it ended with %v, and said %q, want %q", err, said.String(), tt.says)
			}
		})
	}
}

// command writes until it is interrupted, or until its input ends.
func command() {
	term := rig.Interruptible()
	if err := breakConnection(); !errors.Is(err, syscall.EPIPE) {
		fmt.Fprintln(os.Stderr, "the connection is whole:", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	for {
		select {
		case <-term.Context.Done():
			fmt.Fprintln(term.Err, "ended")
			term.Release()
			return
		case <-done:
			term.Release()
			<-term.Context.Done()
			fmt.Fprintln(term.Err, "released")
			return
		default:
			fmt.Fprintln(term.Out, "at work")
		}
	}
}

// breakConnection returns the error of writing to a connection whose other end has gone, as servers that are killed go.
func breakConnection() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	other, err := listener.Accept()
	if err == nil {
		err = other.Close()
	}
	for err == nil || errors.Is(err, syscall.ECONNRESET) { // which comes once, and without a signal
		_, err = conn.Write([]byte("x"))
	}
	return err
}
