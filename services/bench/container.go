package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// server is a container and the one address it is reached at.
type server struct {
	name string
	addr netip.AddrPort
	ctr  *testcontainers.DockerContainer
}

// url connects to a database of a PostgreSQL server.
func (s *server) url(user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: s.addr.String(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// run starts a container that is reached on a free port of 127.0.0.1. On Linux it shares the machine's network: Docker's
// proxy in between would cost CPU time that is nobody's.
func (s *servers) run(ctx context.Context, name, image string, options func(bind string, addr netip.AddrPort) []testcontainers.ContainerCustomizer) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	srv := &server{name: name, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	bind, published := "127.0.0.1", network.PortMap(nil)
	if runtime.GOOS != "linux" {
		inside, err := network.ParsePort(fmt.Sprintf("%d/tcp", port))
		if err != nil {
			return nil, err
		}
		bind, published = "0.0.0.0", network.PortMap{inside: {{HostIP: srv.addr.Addr(), HostPort: strconv.Itoa(int(port))}}}
	}
	opts := append(options(bind, srv.addr),
		testcontainers.WithLabels(map[string]string{label: owner(os.Getpid())}),
		testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
			if published == nil {
				hc.NetworkMode = "host"
			}
			hc.PortBindings = published
		}))
	if published != nil {
		opts = append(opts, testcontainers.WithExposedPorts(fmt.Sprintf("%d/tcp", port)))
	}
	if srv.ctr, err = testcontainers.Run(ctx, image, opts...); err != nil {
		return nil, errors.Join(fmt.Errorf("run %s: %w", image, err), testcontainers.TerminateContainer(srv.ctr))
	}
	return srv, nil
}

// await calls try until it succeeds, the container ends, or three minutes are over. The error then holds the end of its log.
func (s *server) await(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if state, stateErr := s.ctr.State(ctx); stateErr == nil && !state.Running {
			return fmt.Errorf("%s ended with code %d:\n%s", s.name, state.ExitCode, s.logs(ctx))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", s.name, err, s.logs(context.WithoutCancel(ctx)))
		case <-tick.C:
		}
	}
}

func (s *server) logs(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := s.ctr.Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer r.Close() //nolint:errcheck // read only
	b, _ := io.ReadAll(r)
	return string(b[max(0, len(b)-4096):])
}

// cpu is the CPU time that the container's processes have used, in seconds.
func (s *servers) cpu(ctx context.Context, srv *server) (float64, error) {
	res, err := s.docker.ContainerStats(ctx, srv.ctr.GetContainerID(), client.ContainerStatsOptions{})
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of %s: %w", srv.name, err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	var stats container.StatsResponse
	if err := json.NewDecoder(res.Body).Decode(&stats); err != nil {
		return 0, fmt.Errorf("read the CPU time of %s: %w", srv.name, err)
	}
	return float64(stats.CPUStats.CPUUsage.TotalUsage) / 1e9, nil
}

// remove removes the containers and their data.
func (s *servers) remove(ctx context.Context) error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, srv := range append(s.pg, s.kafka) {
		if srv != nil {
			errs = append(errs, testcontainers.TerminateContainer(srv.ctr, testcontainers.StopContext(ctx), testcontainers.StopTimeout(0)))
		}
	}
	return errors.Join(append(errs, s.docker.Close())...)
}

// removeLeftovers removes the containers of bench processes that were killed before they could.
func removeLeftovers(ctx context.Context, docker *client.Client) error {
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
		if _, err := docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			return err
		}
	}
	return nil
}

// owner names a process of this machine.
func owner(pid int) string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d", host, pid)
}

// freePort finds a free port below those that the system hands out for outgoing connections.
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

func freeAddr() (string, error) {
	port, err := freePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), err
}

// silent keeps testcontainers' chatter out of the bench's output.
type silent struct{}

func (silent) Printf(string, ...any) {}
