package app

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// kafka is how a service reaches the cluster.
type kafka struct {
	broker.Config
	createTopics   bool
	partitions     int
	replication    int // 0: as many as the cluster can, up to 3
	sessionTimeout time.Duration
	instanceID     string
}

// ReadBroker reads the settings that reach a Kafka cluster.
func ReadBroker(s *Settings, clientID string) broker.Config {
	cfg := broker.Config{
		Brokers:       s.Addrs("KAFKA_BROKERS", []string{"127.0.0.1:9092"}, "Kafka brokers to start from"),
		ClientID:      clientID,
		SASLMechanism: s.OneOf("KAFKA_SASL_MECHANISM", "", "how to log in to Kafka; empty: not at all", "", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
		SASLUser:      s.String("KAFKA_SASL_USER", "", "user for the SASL mechanism"),
		SASLPassword:  s.Secret("KAFKA_SASL_PASSWORD", "", "password for the SASL mechanism"),
	}
	ca := s.String("KAFKA_TLS_CA", "", "PEM file with the authority that signed the brokers' certificates; empty: the system's")
	if s.Bool("KAFKA_TLS", false, "talk TLS to Kafka") {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if ca != "" {
			pem, err := os.ReadFile(ca)
			cfg.TLS.RootCAs = x509.NewCertPool()
			if err != nil || !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
				s.Reject("KAFKA_TLS_CA", "a readable file with PEM certificates")
			}
		}
	}
	return cfg
}

// DefaultPartitions is how many partitions a topic gets when nobody says: as many instances of a service can share its
// work.
const DefaultPartitions = 6

func readKafka(s *Settings, service string) kafka {
	return kafka{
		Config:         ReadBroker(s, service),
		createTopics:   s.Bool("KAFKA_CREATE_TOPICS", true, "create missing topics at start"),
		partitions:     s.Int("KAFKA_PARTITIONS", DefaultPartitions, 1, 1000, "partitions of topics that are created"),
		replication:    ReadReplication(s),
		sessionTimeout: s.Duration("KAFKA_SESSION_TIMEOUT", 6*time.Second, 100*time.Millisecond, 5*time.Minute, "after this long without a heartbeat an instance's partitions go to the others"),
		instanceID:     s.String("KAFKA_INSTANCE_ID", "", "this instance's own name in its consumer groups, such as a pod's of a StatefulSet; restarted under it, it gets its partitions back at once; empty: none"),
	}
}

// ReadReplication reads how many replicas topics are to have.
func ReadReplication(s *Settings) int {
	return s.Int("KAFKA_REPLICATION", 0, 0, 100, "replicas of topics that are created; 0: the lesser of 3 and the brokers that there are")
}

// topicSpecs are the topics that the service needs.
func (k kafka) topicSpecs(svc saga.Service) ([]broker.TopicSpec, error) {
	specs, err := saga.Topics(k.partitions, svc)
	for i := range specs {
		specs[i].Replication = k.replication
	}
	return specs, err
}
