// Package bench measures the whole system from outside: the real binaries as processes of their own, Apache Kafka and
// PostgreSQL in containers with their default durability, and a driver that talks HTTP. It reports throughput, latency
// and where the CPU time went, and after every run holds the three databases against each other: a number counts only
// if nothing was lost or doubled.
//
// The driver learns of an order's end from Kafka, as any other consumer would, so that it costs the databases nothing.
// What is stored is read when the load is over.
//
// This package runs what package plan says. The packages below have one job each, and their arrows point one way:
//
//	bench    runs the legs: starts a system, puts the loads on it, verifies
//	report   holds results against the aims, and writes JSON and tables (markdown)
//	measure  reads metrics, CPU time, statements, round trips, memory, profiles
//	plan     says which systems are measured under which loads
//	driver   places orders, and notes when they are acknowledged and settled
//	verify   holds the databases against each other
//	history  writes orders of the past into them
//	testbed  builds the services, starts Kafka, PostgreSQL and the databases
//	naive, sqlfloor, synchronous   are what the system is compared with
//	workload makes up orders, products and accounts
package bench
