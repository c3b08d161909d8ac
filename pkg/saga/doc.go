// Package saga is a service's part of a choreography: which topics it reacts to, with what, and which events it may
// emit.
//
// A handler gets a transaction and typed messages and returns the events to emit. Around it, for each poll's messages,
// stands one transaction:
//
//	inbox (seen before?)  →  the handler's SQL  →  outbox (the events it returned)
//
// and the offset goes to Kafka only after its commit. So every message has its effect once, whatever is delivered
// twice, late or to a zombie; and nothing can be published outside the transaction. (Hector Garcia-Molina and Kenneth
// Salem, "Sagas", 1987; the choreographed form: Chris Richardson, "Microservices Patterns", chapter 4.)
//
// What a handler returns decides what happens:
//
//   - events: the outcome, a business refusal included. Out of stock is an event, not an error.
//   - timers ([After], [Cancel]): events for later, unless they are cancelled, set in the same transaction.
//   - an infrastructure fault (see [pg.Transient]): the same batch is tried again, in place, until it passes.
//   - [Permanent]: no code can ever handle this message. It goes to the dead letter topic "<group>.dlq", with its reason.
//   - any other error, io.EOF or a timeout of the handler's own included: the message is left out of its batch, found by the
//     error's own word ([Blame], which [On] does by itself) or by splitting. It is tried again with back-off, and only messages of
//     its key wait for it, in memory or, if they are many, in the database; then it is a dead letter too, and they go on
//     ([Followers]).
package saga
