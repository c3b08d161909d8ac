// Package checker compares what order, inventory and payment hold, says where they disagree, and puts it right. It asks the services
// themselves (pkg/facts), never their databases, and changes nothing but through their commands.
//
// What must be: the orders that are CONFIRMED, those whose reservation is RESERVED and those whose payment is COMPLETED are three equal
// sets, and hold the same of each order: who pays how much, and which items. While events are on their way they are not equal, and nothing
// is wrong. So it matters when to judge.
//
// # The rule
//
// An order is judged only by facts that were the same in two looks at all three services, when between the looks all services were asked
// how far they are with what they have to tell and were told (their flow), and every one of the facts is older than the watermark:
//
//	the moment before they were asked - (longest unpublished + longest unhandled of the three) - grace
//
// Anything else that differs is in flight: it is counted, and left for the next check. So is what differs by its nature for a while, an
// order that is PENDING or CANCELLING, until its deadline; but for one that is PENDING and paid, which has no reason to be.
//
// # Why that is sound
//
// A wrong verdict would need an event that is to come yet, and that changes what one of the services holds of the order. It was written
// in the transaction that made the sender's fact what it is, so it is as old as that fact, and it keeps its time in the outbox and in
// Kafka. The first look saw the fact, so the event was there when flow was asked. If it was not handled then, it waited either in the
// outbox or in Kafka, and the watermark is before it, and so before its fact, which is therefore not judged. If it was handled between
// the looks, the second look shows what came of it, and differs. Nothing can be between outbox and Kafka unseen, though services are asked
// one after the other: flow is asked for twice, and what had left an outbox in the first round is in Kafka in the second.
//
// It takes for granted that whoever passes on what it heard of an order holds something else of it then, or has told it before; and that
// clocks disagree by less than grace. Where that does not hold, an order may be judged too early. The commands of a repair then meet either
// what the checker saw, and what they do is undone by the saga or a later check, or something else, and refuse (facts.Changed).
//
// # How little is moved
//
// Services answer with digests of spans of time; only spans that differ are looked into, a level deeper each time, and listed when they are
// short. Sets that are equal cost a handful of requests, however large they are.
package checker
