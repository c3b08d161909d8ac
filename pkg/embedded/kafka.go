package embedded

import (
	"cmp"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaConfig says where a broker keeps its log and what it starts with. The zero value is a broker on a free port that
// keeps nothing.
type KafkaConfig struct {
	// Dir holds topics, records, groups and their offsets, each written through to the disk before it is acknowledged.
	// Empty means that they live in memory and end with the broker.
	Dir string
	// Port on 127.0.0.1; 0 means a free one.
	Port int
	// MinSessionTimeout is the shortest session timeout a group member may ask for; 0 means Kafka's own, six seconds.
	MinSessionTimeout time.Duration
	// Unsynced leaves it to the operating system when records get from its memory to the disk, which is faster and enough
	// for everything but a crash of the machine. Tests use it.
	Unsynced bool
}

// KafkaServer is a Kafka-protocol broker in this process. Its methods may be called from several goroutines.
type KafkaServer struct {
	cluster *kfake.Cluster
	addr    string
}

// Kafka starts a broker. It creates no topics of itself and none on mention: they are created with CreateTopics, as on a
// production cluster.
func Kafka(cfg KafkaConfig) (*KafkaServer, error) {
	port, err := freePort(cfg.Port)
	if err != nil {
		return nil, fmt.Errorf("start embedded Kafka: %w", err)
	}
	opts := []kfake.Opt{
		kfake.Ports(port),
		kfake.GroupMinSessionTimeout(cmp.Or(cfg.MinSessionTimeout, 6*time.Second)),
	}
	if cfg.Dir != "" {
		opts = append(opts, kfake.DataDir(cfg.Dir))
		if !cfg.Unsynced {
			opts = append(opts, kfake.SyncWrites())
		}
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("start embedded Kafka: port %d: %w", port, err)
	}
	return &KafkaServer{cluster: cluster, addr: cluster.ListenAddrs()[0]}, nil
}

// Addr is the broker's address, host:port.
func (s *KafkaServer) Addr() string { return s.addr }

// Stop ends the broker's connections and, with a directory, leaves everything in it for the next start. It may be called
// again.
func (s *KafkaServer) Stop() { s.cluster.Close() }
