package testserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// label marks the containers of the test kits. Its value is the machine's name and the test process's id.
const label = "dev.converge.test"

// Container is a container whose one published port keeps its address when it is stopped and started again.
type Container struct {
	Addr string // 127.0.0.1:port
	ctr  *testcontainers.DockerContainer
}

// Run starts a container of image that publishes port (as "5432/tcp"). The options are made for the address that it will
// have, so that a server can be told to advertise it. Run does not wait for the server inside; see [Container.Await].
func Run(ctx context.Context, image, port string, options func(addr string) []testcontainers.ContainerCustomizer) (*Container, error) {
	if err := removeLeftovers(); err != nil {
		return nil, fmt.Errorf("remove what killed tests left: %w", err)
	}
	inside, err := network.ParsePort(port)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		outside, err := freePort()
		if err != nil {
			return nil, err
		}
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), outside)
		opts := append(options(addr.String()),
			testcontainers.WithLabels(map[string]string{label: owner(os.Getpid())}),
			testcontainers.WithExposedPorts(port),
			testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
				hc.PortBindings = network.PortMap{inside: {{HostIP: addr.Addr(), HostPort: strconv.Itoa(int(outside))}}}
			}),
		)
		ctr, err := testcontainers.Run(ctx, image, opts...)
		if err == nil {
			return &Container{Addr: addr.String(), ctr: ctr}, nil
		}
		err = errors.Join(err, testcontainers.TerminateContainer(ctr))
		taken := strings.Contains(err.Error(), "port is already allocated") || strings.Contains(err.Error(), "address already in use")
		if !taken || attempt == 5 {
			return nil, fmt.Errorf("run %s: %w", image, err)
		}
	}
}

// Await calls try until it succeeds, the container ends, or ctx does. The error then holds the end of the container's log.
func (c *Container) Await(ctx context.Context, try func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if state, stateErr := c.ctr.State(ctx); stateErr == nil && !state.Running {
			return fmt.Errorf("the container ended with code %d:\n%s", state.ExitCode, c.logs())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w\n%s", err, c.logs())
		case <-tick.C:
		}
	}
}

// Start starts a container that was stopped.
func (c *Container) Start(ctx context.Context) error { return c.ctr.Start(ctx) }

// Stop stops the container; its data stay.
func (c *Container) Stop(ctx context.Context) error {
	timeout := 20 * time.Second
	return c.ctr.Stop(ctx, &timeout)
}

// Terminate removes the container and its data.
func (c *Container) Terminate(ctx context.Context) error {
	return testcontainers.TerminateContainer(c.ctr, testcontainers.StopContext(ctx), testcontainers.StopTimeout(0))
}

// logs is the end of what the container wrote.
func (c *Container) logs() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := c.ctr.Logs(ctx)
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

// removeLeftovers removes, once per process, the containers of test processes that were killed before they could.
var removeLeftovers = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return err
	}
	defer docker.Close() //nolint:errcheck // its work is done
	list, err := docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", label)})
	if err != nil {
		return err
	}
	for _, c := range list.Items {
		_, number, _ := strings.Cut(c.Labels[label], "/")
		pid, err := strconv.Atoi(number)
		if err != nil || owner(pid) != c.Labels[label] {
			continue // another machine's, on an engine that we share
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			continue
		}
		// Another test process may be removing it too.
		_, _ = docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
	return nil
})

// owner names a process of this machine.
func owner(pid int) string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d", host, pid)
}
