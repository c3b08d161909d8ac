// Package checker is the checker of Converge's own saga: it declares to pkg/checker what order, inventory and payment
// must agree about, and how that is put right. How it looks, and when it judges, is the library's.
//
// What must be: the orders that are CONFIRMED, those whose reservation is RESERVED and those whose payment is
// COMPLETED are three equal sets, and hold the same of each order: who pays how much, and which items. An order that
// is PENDING or CANCELLING is left alone until its deadline; but for one that is PENDING and paid, which has no
// reason to be.
//
// Its schema is the library's: pkg/checker/migrations.
package checker
