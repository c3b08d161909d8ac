package rig

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

// label marks the rig's containers and volumes; its value is the machine's name and the process's id.
const label = "dev.converge.rig"

// Server is a container and the one address it is reached at, for as long as it exists.
type Server struct {
	Name string
	Addr netip.AddrPort

	ctr    *testcontainers.DockerContainer
	holder *testcontainers.DockerContainer // of its volume, if that has an end
	ready  func(context.Context) error
}

// URL connects to a database of a PostgreSQL server.
func (s *Server) URL(user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: s.Addr.String(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// run starts a container that is reached on a free port of 127.0.0.1. On Linux it shares the machine's network:
// Docker's proxy in between would cost CPU time that is nobody's.
func (s *Servers) run(ctx context.Context, name, image string,
	options func(bind string, addr netip.AddrPort) ([]testcontainers.ContainerCustomizer, error),
) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	srv := &Server{Name: name, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}
	bind, published := "127.0.0.1", network.PortMap(nil)
	if runtime.GOOS != "linux" {
		inside, err := network.ParsePort(fmt.Sprintf("%d/tcp", port))
		if err != nil {
			return nil, err
		}
		bind, published = "0.0.0.0", network.PortMap{inside: {{HostIP: srv.Addr.Addr(), HostPort: strconv.Itoa(int(port))}}}
	}
	opts, err := options(bind, srv.Addr)
	if err != nil {
		return nil, err
	}
	opts = append(opts,
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

// Await waits until the server can be used, the container ends, or three minutes are over. The error then holds the end
// of its log.
func (s *Server) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		if state, stateErr := s.ctr.State(ctx); stateErr == nil && !state.Running {
			return fmt.Errorf("%s ended with code %d:\n%s", s.Name, state.ExitCode, s.logs(ctx))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", s.Name, err, s.logs(context.WithoutCancel(ctx)))
		case <-tick.C:
		}
	}
}

// Start starts a server that was stopped or killed, with the data it had, at the address it had.
func (s *Server) Start(ctx context.Context) error {
	if err := s.ctr.Start(ctx); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	return nil
}

// Stop sends a signal, such as SIGTERM, and waits for the server's end; after 20 s it is killed.
func (s *Server) Stop(ctx context.Context, signal string) error {
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return fmt.Errorf("stop %s: %w", s.Name, err)
	}
	defer docker.Close() //nolint:errcheck // its work is done
	patience := 20
	if _, err := docker.ContainerStop(ctx, s.ctr.GetContainerID(), client.ContainerStopOptions{Signal: signal, Timeout: &patience}); err != nil {
		return fmt.Errorf("stop %s: %w", s.Name, err)
	}
	return nil
}

// PID is the server's main process, where containers are processes of this machine.
func (s *Server) PID(ctx context.Context) (int, error) {
	state, err := s.ctr.State(ctx)
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", s.Name, err)
	}
	return state.Pid, nil
}

// Running tells whether the server has not ended by itself.
func (s *Server) Running(ctx context.Context) (bool, error) {
	state, err := s.ctr.State(ctx)
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", s.Name, err)
	}
	return state.Running, nil
}

func (s *Server) logs(ctx context.Context) string {
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

// CPU is the CPU time that the container's processes have used, in seconds.
func (s *Servers) CPU(ctx context.Context, srv *Server) (float64, error) {
	res, err := s.docker.ContainerStats(ctx, srv.ctr.GetContainerID(), client.ContainerStatsOptions{})
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of %s: %w", srv.Name, err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	var stats container.StatsResponse
	if err := json.NewDecoder(res.Body).Decode(&stats); err != nil {
		return 0, fmt.Errorf("read the CPU time of %s: %w", srv.Name, err)
	}
	return float64(stats.CPUStats.CPUUsage.TotalUsage) / 1e9, nil
}

// removeLeftovers removes the containers and volumes of processes that were killed before they could.
func removeLeftovers(ctx context.Context, docker *client.Client) error {
	list, err := docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: client.Filters{}.Add("label", label)})
	if err != nil {
		return err
	}
	for _, c := range list.Items {
		if !orphaned(c.Labels[label]) {
			continue
		}
		if _, err := docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			return err
		}
	}
	volumes, err := docker.VolumeList(ctx, client.VolumeListOptions{Filters: client.Filters{}.Add("label", label)})
	if err != nil {
		return err
	}
	for _, v := range volumes.Items {
		if !orphaned(v.Labels[label]) {
			continue
		}
		if _, err := docker.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
			return err
		}
	}
	return nil
}

// orphaned tells whether a label's value names a process of this machine that has ended.
func orphaned(value string) bool {
	_, number, _ := strings.Cut(value, "/")
	pid, err := strconv.Atoi(number)
	if err != nil || owner(pid) != value {
		return false // another machine's, on an engine that we share
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
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

// FreeAddr is an address to listen on that stays free while nobody does.
func FreeAddr() (string, error) {
	port, err := freePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))), err
}

// silent keeps testcontainers' chatter out of the output.
type silent struct{}

func (silent) Printf(string, ...any) {}
