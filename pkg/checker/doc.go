// Package checker compares what services hold of the same things, says where they disagree, and puts it right. It
// asks the services themselves (pkg/facts), never their databases, and changes nothing but through their commands.
//
// What must be true is declared: which services there are, and rules of what they hold ([Config]). [New] makes a
// checker to call, [App] a service that checks by a schedule, with an API, metrics and records; package checkertest
// checks in a test.
//
// Things are called orders in the API, in metrics and in logs, for what the key of most sagas is. A thing is whatever
// the facts with one id are of.
//
// While events are on their way services do not hold the same, and nothing is wrong. So it matters when to judge.
//
// # The rule
//
// A thing is judged only by facts that were the same in two looks at all services, when between the looks all
// services were asked how far they are with what they have to tell and were told (their flow), and every one of the
// facts is older than the watermark:
//
//	the moment before they were asked - (longest unpublished + longest unhandled of them all) - grace
//
// Anything else that differs is in flight: it is counted, and left for the next check. So is what differs by its
// nature for a while, until its deadline, see [Settles].
//
// # Why that is sound
//
// A wrong verdict would need an event that is to come yet, and that changes what one of the services holds of the
// thing. It was written in the transaction that made the sender's fact what it is, so it is as old as that fact, and
// it keeps its time in the outbox and in Kafka. The first look saw the fact, so the event was there when flow was
// asked. If it was not handled then, it waited either in the outbox or in Kafka, and the watermark is before it, and
// so before its fact, which is therefore not judged. If it was handled between the looks, the second look shows what
// came of it, and differs. Nothing can be between outbox and Kafka unseen, though services are asked one after the
// other: flow is asked for twice, and what had left an outbox in the first round is in Kafka in the second.
//
// It takes for granted that whoever passes on what it heard of a thing holds something else of it then, or has told
// it before; and that clocks disagree by less than grace. Where that does not hold, a thing may be judged too early.
// The commands of a repair then meet either what the checker saw, and what they do is undone by the saga or a later
// check, or something else, and refuse ([facts.Changed]).
//
// # How little is moved
//
// Services answer with digests of spans of time; only spans that differ are looked into, a level deeper each time,
// and listed when they are short. Sets that are equal cost a handful of requests, however large they are.
package checker
