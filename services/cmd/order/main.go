// Command order is the order service. Its settings are environment variables, which -h lists.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/order"
)

func main() { app.Main(order.Run) }
