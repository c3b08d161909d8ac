package testserver

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
)

// Label marks the containers of the test kits; its value is the id of the test process.
const Label = "dev.converge.test"

// Container is a container whose one published port keeps its address when it is stopped and started again.
type Container struct {
	ctr  *testcontainers.DockerContainer
	Addr string // 127.0.0.1:port
}

// Run starts a container of image that publishes port (as "5432/tcp"). The options are made for the address it will
// have, so that a server can be told to advertise it. Run does not wait for the server inside.
func Run(ctx context.Context, image, port string, options func(addr string) []testcontainers.ContainerCustomizer) (*Container, error) {
	inside, err := network.ParsePort(port)
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		outside, err := freePort()
		if err != nil {
			return nil, err
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(outside))
		opts := append(options(addr),
			testcontainers.WithLabels(map[string]string{Label: strconv.Itoa(os.Getpid())}),
			testcontainers.WithLogger(silent{}),
			testcontainers.WithExposedPorts(port),
			testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
				hc.PortBindings = network.PortMap{inside: {{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: strconv.Itoa(outside)}}}
			}),
		)
		ctr, err := testcontainers.Run(ctx, image, opts...)
		c := &Container{ctr: ctr, Addr: addr}
		if err == nil {
			return c, nil
		}
		if ctr != nil {
			_ = c.Terminate(context.WithoutCancel(ctx))
		}
		taken := strings.Contains(err.Error(), "port is already allocated") || strings.Contains(err.Error(), "address already in use")
		if !taken || attempt == 5 {
			return nil, fmt.Errorf("run %s: %w", image, err)
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

// Logs is the end of what the container wrote, for the message of a failed test.
func (c *Container) Logs(ctx context.Context) string {
	r, err := c.ctr.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, _ := io.ReadAll(r)
	return string(b[max(0, len(b)-4096):])
}

// freePort finds a free port below those the system hands out by itself, so that no outgoing connection takes it while
// the container is stopped.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20000 + rand.IntN(10000)
		var l net.Listener
		if l, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// silent keeps testcontainers' chatter out of the tests' output.
type silent struct{}

func (silent) Printf(string, ...any) {}
