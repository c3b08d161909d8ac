// Package app is the frame every service runs in: its settings, its logs, its life cycle, and the [Runtime] that ties
// HTTP, Kafka and PostgreSQL together.
//
// A binary is one line:
//
//	func main() { app.Main(order.Run) }
//
// and Run reads everything it needs from getenv, so that the binary, the all-in-one stack and the tests call the same
// function with different surroundings.
package app
