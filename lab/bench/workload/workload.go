// Package workload makes up what a load consists of: orders, and the products and accounts that they need. Orders are
// the same for the same seed. There is so much stock and money that no order is refused.
package workload

// Services lists the services in the order in which an order meets them.
var Services = [...]string{"order", "inventory", "payment"}
