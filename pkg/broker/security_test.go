package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// authority makes a server's certificate for 127.0.0.1 and what trusts it.
func authority(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// Both connections that a client makes, the pool's and the consumer group's, log in and speak TLS.
func TestTLSAndSASL(t *testing.T) {
	server, trust := authority(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			cluster := brokertest.FakeSecured(t, server, mechanism, "ada", "secret")
			cfg := broker.Config{Brokers: cluster.Brokers(), TLS: trust, SASLMechanism: mechanism, SASLUser: "ada", SASLPassword: "secret"}
			client, err := broker.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			topic, seen := brokertest.Name(t), newLog()
			if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: topic, Partitions: 2}}); err != nil {
				t.Fatal(err)
			}
			consume(t, client, brokertest.Name(t), topic, seen)
			produce(t, client, records(topic, 3, 5))
			seen.wait(t, "records over TLS", func() bool { return seen.count >= 15 })

			cfg.SASLPassword = "wrong"
			stranger, err := broker.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			if err := stranger.Ping(t.Context()); err == nil {
				t.Error("a wrong password was let in")
			}
		})
	}
}
