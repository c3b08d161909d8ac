// Package sabotage breaks what the system promises, on purpose, so that a test can show that the checker notices. In a
// normal build everything here is the constant false. A build with the tag faults reads CONVERGE_SABOTAGE:
//
//   - skip-inbox: no message is looked up in the inbox; everything is new
//   - early-commit: offsets are committed to Kafka before the transaction that handles the messages
//   - bypass-outbox: what a handler emits goes straight to Kafka after the commit, and not through the outbox
package sabotage
