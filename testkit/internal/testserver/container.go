package testserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// KeeperEnv names the command that holds a test process's containers. Without it, go run builds it, where the module
// under test has what it is made of; that is testcontainers, which who imports a test kit need not have.
const KeeperEnv = "CONVERGE_TEST_KEEPER"

const keeperPackage = "github.com/converge-dev/converge/testkit/cmd/keeper"

// keeperStarts fails where there is no keeper, and says how to get one.
func keeperStarts() error {
	if path := os.Getenv(KeeperEnv); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return fmt.Errorf("%s: %w", KeeperEnv, err)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", keeperPackage)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s is not set, and this module cannot build %s (go install builds it anywhere): %w: %s", KeeperEnv, keeperPackage, err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) []byte {
	out = bytes.TrimSpace(out)
	return out[bytes.LastIndexByte(out, '\n')+1:]
}

// Container is a container whose one published port keeps its address when it is stopped and started again.
type Container struct {
	Handle
	keeper *rpc.Client
}

// Run starts a container. It does not wait for the server inside; see [Container.Await].
func Run(ctx context.Context, spec Spec) (*Container, error) {
	keeper, err := connect()
	if err != nil {
		return nil, fmt.Errorf("start what holds the containers: %w", err)
	}
	c := &Container{keeper: keeper}
	if err := call(ctx, keeper, "Run", spec, &c.Handle); err != nil {
		return nil, err
	}
	return c, nil
}

// Await calls try until it succeeds, the container ends, or ctx does. The error then holds the end of the container's
// log.
func (c *Container) Await(ctx context.Context, try func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if state, lookErr := c.look(ctx); lookErr == nil && !state.Running {
			return fmt.Errorf("the container ended with code %d:\n%s", state.ExitCode, state.Logs)
		}
		select {
		case <-ctx.Done():
			state, lookErr := c.look(context.WithoutCancel(ctx))
			return fmt.Errorf("not ready: %w\n%s", errors.Join(ctx.Err(), lookErr, err), state.Logs)
		case <-tick.C:
		}
	}
}

// Start starts a container that was stopped.
func (c *Container) Start(ctx context.Context) error { return c.do(ctx, "Start") }

// Stop stops the container; its data stay.
func (c *Container) Stop(ctx context.Context) error { return c.do(ctx, "Stop") }

// Terminate removes the container and its data.
func (c *Container) Terminate(ctx context.Context) error { return c.do(ctx, "Remove") }

func (c *Container) do(ctx context.Context, method string) error {
	return call(ctx, c.keeper, method, c.ID, &struct{}{})
}

func (c *Container) look(ctx context.Context) (s State, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s, call(ctx, c.keeper, "Look", c.ID, &s)
}

// call waits for the keeper's answer as long as ctx lasts. The keeper goes on by itself: what it starts too late ends
// with the test process.
func call(ctx context.Context, keeper *rpc.Client, method string, arg, reply any) error {
	answered := keeper.Go("Keeper."+method, arg, reply, make(chan *rpc.Call, 1)).Done
	select {
	case c := <-answered:
		return c.Error
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connect starts the keeper, once per process. It lives until its input ends: when [Main] is done, or with the process.
var connect = sync.OnceValues(func() (*rpc.Client, error) {
	command := []string{"go", "run", keeperPackage}
	if path := os.Getenv(KeeperEnv); path != "" {
		command = []string{path}
	}
	// Not of a context: it must outlive every test, to remove what they started.
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(command, " "), err)
	}
	client := rpc.NewClientWithCodec(jsonrpc.NewClientCodec(pipe{out, in}))
	binary.mu.Lock()
	defer binary.mu.Unlock()
	binary.keeper = func() error { // it removes what is left, and then ends
		return errors.Join(in.Close(), cmd.Wait())
	}
	return client, nil
})

// pipe is both ends of the connection to the keeper.
type pipe struct {
	io.Reader
	io.WriteCloser
}
