// Command stack runs the whole system in one process on embedded servers.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/stack"
)

func main() { app.Main(stack.Run) }
