package idempotency

// Queries are all of the package's statements.
var Queries = map[string]string{"lock": lockSQL, "wait": waitSQL, "find": findSQL, "store": storeSQL, "prune": pruneSQL}
