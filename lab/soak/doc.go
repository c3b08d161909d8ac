// Package soak runs the whole system, real binaries on Apache Kafka and PostgreSQL in containers, breaks one part of it
// after the other while orders come in, and then holds databases and topics against each other: whatever happened, no
// order may be lost, doubled or stuck. A seed decides what is broken when.
//
// Beside the services runs a witness (package witness) whose handler does damage when a message is handled twice.
package soak
