// Command keeper holds the containers of one test process. A test kit starts it and talks to it over its standard input
// and output; when the input ends, it removes the containers and ends too.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/testcontainers/testcontainers-go/log"

	"github.com/converge-dev/converge/testkit/internal/keeper"
)

func main() {
	// An interrupt of the terminal reaches the tests too; their end is ours.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	// testcontainers' own clean-up is a container of one more image; ours is this process.
	_ = os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	log.SetDefault(silent{})
	if err := keeper.Serve(pipe{os.Stdin, os.Stdout}); err != nil {
		fmt.Fprintln(os.Stderr, "the keeper of the tests' containers:", err)
		os.Exit(1)
	}
}

// pipe is both ends of the connection to the test process.
type pipe struct {
	io.Reader
	io.WriteCloser
}

// silent keeps testcontainers' chatter out of the tests' output.
type silent struct{}

func (silent) Printf(string, ...any) {}
