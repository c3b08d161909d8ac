package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaConfig says where a broker keeps its log and where it listens. The zero value is a broker on a free port that
// keeps nothing.
type KafkaConfig struct {
	// Dir holds topics, records, groups and their offsets, and is created if missing. What the broker acknowledged is
	// on the disk, not in the system's cache. One broker at a time may use it. Empty means that all of it lives in
	// memory and ends with the broker.
	Dir string
	// Port on 127.0.0.1; 0 means a free one.
	Port int
}

// KafkaServer is a Kafka-protocol broker in this process: a cluster of one node. Its methods may be called from several
// goroutines.
type KafkaServer struct {
	cluster *kfake.Cluster
	addr    string
	lock    *os.File // nil without a directory
}

// Kafka starts a broker. It makes no topic on mention: topics are created, as on a production cluster. A taken port is
// an error that names it and satisfies errors.Is(err, syscall.EADDRINUSE). When ctx ends while another broker still
// uses the directory, Kafka gives up; afterwards ctx has no effect.
func Kafka(ctx context.Context, cfg KafkaConfig) (*KafkaServer, error) {
	srv, err := startKafka(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start embedded Kafka: %w", err)
	}
	return srv, nil
}

func startKafka(ctx context.Context, cfg KafkaConfig) (_ *KafkaServer, err error) {
	srv := &KafkaServer{}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return listenLoopback(cfg.Port) }),
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, err
		}
		if srv.lock, err = lock(ctx, filepath.Join(cfg.Dir, "lock"), lockPatience); err != nil {
			return nil, err
		}
		opts = append(opts, kfake.DataDir(filepath.Join(cfg.Dir, "data")), kfake.SyncWrites())
	}
	if srv.cluster, err = kfake.NewCluster(opts...); err != nil {
		return nil, errors.Join(err, srv.unlock())
	}
	srv.addr = srv.cluster.ListenAddrs()[0]
	return srv, nil
}

// Addr is the broker's address, host:port.
func (s *KafkaServer) Addr() string { return s.addr }

// Stop ends the broker's connections and, with a directory, leaves everything in it for the next start. It may be
// called again.
func (s *KafkaServer) Stop() {
	s.cluster.Close()
	_ = s.unlock()
}

func (s *KafkaServer) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// listenLoopback listens on a port of 127.0.0.1, a free one for 0.
func listenLoopback(port int) (net.Listener, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("port %d: %w", port, err)
	}
	return l, nil
}
