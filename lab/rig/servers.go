package rig

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"

	"github.com/converge-dev/converge/pkg/broker"
)

// What runs in the containers.
const (
	KafkaImage    = "apache/kafka:4.3.1"
	PostgresImage = "postgres:18"
)

const password = "converge"

// Config says what to start.
type Config struct {
	Topics    []broker.TopicSpec
	Postgres  []PostgresConfig
	Kafka     map[string]string                           // environment beyond Kafka's defaults
	Advertise func(broker netip.AddrPort) (string, error) // where clients find a broker, if not at its own address; called for each

	// Second adds a broker that leads every third partition of Topics and nothing else: no group is coordinated there.
	// It is there on Linux only, where containers share the machine's network.
	Second bool
	// Forgetful puts the first broker's data in a volume, for [Server.Sizes] and [Server.CutBack].
	Forgetful bool
}

// PostgresConfig is one server.
type PostgresConfig struct {
	Name   string
	Args   []string // settings beyond the image's, such as -c work_mem=8MB
	SpaceM int      // MiB that its data may take, in memory; 0: what the disk has
}

// Servers are what the services run on.
type Servers struct {
	Kafka    *Server
	Second   *Server // the second broker, if there is one
	Postgres []*Server

	docker  *client.Client
	holders []*testcontainers.DockerContainer // keep volumes whose users may stop
	volumes []string
}

// Start starts Kafka and the PostgreSQL servers. What was started has to be removed even after an error.
func Start(ctx context.Context, cfg Config) (*Servers, error) {
	log.SetDefault(silent{})
	// testcontainers' own clean-up is a container of one more image; the rig removes what it started, and what an
	// earlier one that was killed left.
	if err := os.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true"); err != nil {
		return nil, err
	}
	docker, err := testcontainers.NewDockerClientWithOpts(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach Docker: %w", err)
	}
	s := &Servers{docker: docker.Client}
	if err := removeLeftovers(ctx, s.docker); err != nil {
		return s, fmt.Errorf("remove what an earlier run left: %w", err)
	}
	if err := s.startKafka(ctx, cfg); err != nil {
		return s, err
	}
	for _, pg := range cfg.Postgres {
		if err := s.startPostgres(ctx, pg); err != nil {
			return s, err
		}
	}
	return s, nil
}

// startPostgres starts a server with the image's settings: every commit reaches the disk before it is acknowledged.
// Statements are counted, which costs it a little.
func (s *Servers) startPostgres(ctx context.Context, cfg PostgresConfig) error {
	volume := ""
	var holder *testcontainers.DockerContainer
	if cfg.SpaceM > 0 {
		var err error
		if volume, holder, err = s.smallVolume(ctx, cfg.Name, cfg.SpaceM); err != nil {
			return fmt.Errorf("make a volume of %d MiB: %w", cfg.SpaceM, err)
		}
	}
	srv, err := s.run(ctx, cfg.Name, PostgresImage, func(bind string, addr netip.AddrPort) ([]testcontainers.ContainerCustomizer, error) {
		args := append([]string{"postgres", "-c", "listen_addresses=" + bind, "-c", "max_connections=300",
			"-c", "shared_preload_libraries=pg_stat_statements"}, cfg.Args...)
		opts := []testcontainers.ContainerCustomizer{
			testcontainers.WithEnv(map[string]string{"POSTGRES_PASSWORD": password, "PGPORT": strconv.Itoa(int(addr.Port()))}),
			testcontainers.WithCmd(args...),
		}
		if volume != "" {
			opts = append(opts, mounted(volume, dataDir))
		}
		return opts, nil
	})
	if err != nil {
		return err
	}
	s.Postgres = append(s.Postgres, srv)
	srv.holder = holder
	srv.ready = func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, srv.URL("postgres", "postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	if err := srv.Await(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, srv.URL("postgres", "postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`)
	return errors.Join(err, conn.Close(ctx))
}

// dataDir is where the image keeps its data, and what a volume of our own replaces.
const dataDir = "/var/lib/postgresql"

func mounted(volume, dir string) testcontainers.CustomizeRequestOption {
	return testcontainers.WithHostConfigModifier(func(hc *container.HostConfig) {
		hc.Mounts = append(hc.Mounts, mount.Mount{Type: mount.TypeVolume, Source: volume, Target: dir})
	})
}

// smallVolume makes a volume in memory. It would be gone with its last container, so one that sleeps holds it.
func (s *Servers) smallVolume(ctx context.Context, name string, mib int) (string, *testcontainers.DockerContainer, error) {
	return s.heldVolume(ctx, name, PostgresImage, dataDir, map[string]string{"type": "tmpfs", "device": "tmpfs", "o": fmt.Sprintf("size=%dm", mib)})
}

// heldVolume makes a volume and a container that sleeps with it, in which commands can change what its user has stored.
func (s *Servers) heldVolume(ctx context.Context, name, image, dir string, options map[string]string) (string, *testcontainers.DockerContainer, error) {
	volume := fmt.Sprintf("converge-%s-%d", name, os.Getpid())
	_, err := s.docker.VolumeCreate(ctx, client.VolumeCreateOptions{
		Name: volume, Driver: "local", Labels: map[string]string{label: owner(os.Getpid())}, DriverOpts: options,
	})
	if err != nil {
		return "", nil, err
	}
	s.volumes = append(s.volumes, volume)
	root := testcontainers.WithConfigModifier(func(c *container.Config) { c.User = "root" })
	holder, err := testcontainers.Run(ctx, image, root, mounted(volume, dir), testcontainers.WithEntrypoint("sleep", "infinity"),
		testcontainers.WithLabels(map[string]string{label: owner(os.Getpid())}))
	if holder != nil {
		s.holders = append(s.holders, holder)
	}
	return volume, holder, err
}

// CreateDatabase makes a new database, with a role of its own, on a server, and returns its URL.
func (s *Servers) CreateDatabase(ctx context.Context, srv *Server, database string) (string, error) {
	conn, err := pgx.Connect(ctx, srv.URL("postgres", "postgres"))
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", database, err)
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement has been answered
	for _, sql := range []string{
		fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, pgx.Identifier{database}.Sanitize(), password),
		fmt.Sprintf(`CREATE DATABASE %[1]s OWNER %[1]s`, pgx.Identifier{database}.Sanitize()),
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("create database %s: %w", database, err)
		}
	}
	return srv.URL(database, database), nil
}

// Remove removes the containers and their data.
func (s *Servers) Remove(ctx context.Context) error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, srv := range append(s.Postgres, s.Kafka, s.Second) {
		if srv != nil {
			errs = append(errs, terminate(ctx, srv.ctr))
		}
	}
	for _, holder := range s.holders {
		errs = append(errs, terminate(ctx, holder))
	}
	for _, volume := range s.volumes {
		_, err := s.docker.VolumeRemove(ctx, volume, client.VolumeRemoveOptions{Force: true})
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.docker.Close())...)
}

func terminate(ctx context.Context, c *testcontainers.DockerContainer) error {
	return testcontainers.TerminateContainer(c, testcontainers.StopContext(ctx), testcontainers.StopTimeout(0))
}
