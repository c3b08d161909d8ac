package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// label marks the containers of the test kits. Its value is the machine's name and the keeper's process id.
const label = "dev.converge.test"

// removeLeftovers removes the containers of keepers that were killed before they could.
func removeLeftovers() error {
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
		host, number, _ := strings.Cut(c.Labels[label], "/")
		pid, err := strconv.Atoi(number)
		if err != nil || host != hostname() {
			continue // another machine's, on an engine that we share
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			continue
		}
		// Another keeper may be removing it too.
		_, _ = docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
	return nil
}

// owner names this process of this machine.
func owner() string { return fmt.Sprintf("%s/%d", hostname(), os.Getpid()) }

func hostname() string {
	host, _ := os.Hostname()
	return host
}
