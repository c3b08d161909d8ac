// Package keeper holds the containers of one test process: it starts them when they are asked for over a connection,
// and removes them when that ends, however the process ended.
//
// It is a process of its own ([../../cmd/keeper]), so that what imports a test kit does not import testcontainers.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/rpc"
	"net/rpc/jsonrpc"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"

	"github.com/converge-dev/converge/testkit/internal/testserver"
)

// launching bounds the start of a container, whose image may have to be pulled first.
const launching = 5 * time.Minute

// Serve answers the calls of one client until it hangs up, and then removes every container that it asked for.
func Serve(conn io.ReadWriteCloser) error {
	if err := removeLeftovers(); err != nil {
		return fmt.Errorf("remove what killed tests left: %w", err)
	}
	k := &Keeper{held: map[string]*testcontainers.DockerContainer{}}
	server := rpc.NewServer()
	if err := server.Register(k); err != nil {
		return err
	}
	server.ServeCodec(jsonrpc.NewServerCodec(conn))
	return k.removeAll()
}

// Keeper is what a client can call. Its methods have the shape of net/rpc.
type Keeper struct {
	mu     sync.Mutex
	closed bool
	held   map[string]*testcontainers.DockerContainer // by id
}

// Run starts a container whose one published port keeps its address when it is stopped and started again. It does not
// wait for the server inside.
func (k *Keeper) Run(spec testserver.Spec, reply *testserver.Handle) error {
	ctx, cancel := context.WithTimeout(context.Background(), launching)
	defer cancel()
	inside, err := network.ParsePort(spec.Port)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		outside, err := freePort()
		if err != nil {
			return err
		}
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), outside)
		ctr, err := testcontainers.Run(ctx, spec.Image, options(spec, inside, addr)...)
		if err == nil {
			reply.ID, reply.Addr = ctr.GetContainerID(), addr.String()
			return k.hold(ctr)
		}
		err = errors.Join(err, testcontainers.TerminateContainer(ctr))
		taken := strings.Contains(err.Error(), "port is already allocated") || strings.Contains(err.Error(), "address already in use")
		if !taken || attempt == 5 {
			return fmt.Errorf("run %s: %w", spec.Image, err)
		}
	}
}

func options(spec testserver.Spec, inside network.Port, addr netip.AddrPort) []testcontainers.ContainerCustomizer {
	env := maps.Clone(spec.Env)
	for name, value := range env {
		env[name] = strings.ReplaceAll(value, "{addr}", addr.String())
	}
	return []testcontainers.ContainerCustomizer{
		testcontainers.WithEnv(env),
		testcontainers.WithCmd(spec.Cmd...),
		testcontainers.WithConfigModifier(func(c *container.Config) { c.User = spec.User }),
		testcontainers.WithLabels(map[string]string{label: owner()}),
		testcontainers.WithExposedPorts(spec.Port),
		testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
			hc.PortBindings = network.PortMap{inside: {{HostIP: addr.Addr(), HostPort: strconv.Itoa(int(addr.Port()))}}}
		}),
	}
}

// Start starts a container that was stopped.
func (k *Keeper) Start(id string, _ *struct{}) error {
	ctr, err := k.find(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), launching)
	defer cancel()
	return ctr.Start(ctx)
}

// Stop stops a container; its data stay.
func (k *Keeper) Stop(id string, _ *struct{}) error {
	ctr, err := k.find(id)
	if err != nil {
		return err
	}
	timeout := 20 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return ctr.Stop(ctx, &timeout)
}

// Look tells what became of a container, with the end of what it wrote.
func (k *Keeper) Look(id string, reply *testserver.State) error {
	ctr, err := k.find(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	state, err := ctr.State(ctx)
	if err != nil {
		return err
	}
	reply.Running, reply.ExitCode, reply.Logs = state.Running, state.ExitCode, logs(ctx, ctr)
	return nil
}

// Remove removes a container and its data.
func (k *Keeper) Remove(id string, _ *struct{}) error {
	ctr, err := k.find(id)
	if err != nil {
		return err
	}
	k.mu.Lock()
	delete(k.held, id)
	k.mu.Unlock()
	return remove(ctr)
}

// hold keeps a container until it is removed. One that started while the client hung up goes at once.
func (k *Keeper) hold(ctr *testcontainers.DockerContainer) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return remove(ctr)
	}
	k.held[ctr.GetContainerID()] = ctr
	return nil
}

func (k *Keeper) find(id string) (*testcontainers.DockerContainer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ctr, ok := k.held[id]
	if !ok {
		return nil, fmt.Errorf("no container %q: it was removed, or is not of this test process", id)
	}
	return ctr, nil
}

func (k *Keeper) removeAll() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	var errs error
	for _, ctr := range slices.Collect(maps.Values(k.held)) {
		errs = errors.Join(errs, remove(ctr))
	}
	return errs
}

func remove(ctr *testcontainers.DockerContainer) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return testcontainers.TerminateContainer(ctr, testcontainers.StopContext(ctx), testcontainers.StopTimeout(0))
}

// logs is the end of what the container wrote.
func logs(ctx context.Context, ctr *testcontainers.DockerContainer) string {
	r, err := ctr.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer r.Close() //nolint:errcheck // what was read of it counts
	b, _ := io.ReadAll(r)
	return string(b[max(0, len(b)-4096):])
}

// freePort finds a free port below those the system hands out by itself, so that no outgoing connection takes it while
// the container is stopped.
func freePort() (uint16, error) {
	var errs error
	for range 100 {
		port := 20000 + rand.IntN(10000)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return uint16(port), l.Close()
		}
		errs = err
	}
	return 0, fmt.Errorf("find a free port: %w", errs)
}
