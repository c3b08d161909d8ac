// Command inventory is the service that owns the stock. "inventory -h" lists its settings.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/inventory"
)

func main() { app.Main(inventory.Run) }
