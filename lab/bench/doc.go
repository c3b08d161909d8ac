// Package bench measures the whole system from outside: the real binaries as processes of their own, Apache Kafka and
// PostgreSQL in containers with their default durability, and a driver that talks HTTP. It reports throughput, latency and
// where the CPU time went, and after every run holds the three databases against each other: a number counts only if
// nothing was lost or doubled.
//
// The driver learns of an order's end from Kafka, as any other consumer would, so that it costs the databases nothing.
// What is stored is read when the load is over.
package bench
