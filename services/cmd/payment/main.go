// Command payment is the service that charges for orders. "payment -h" lists its settings.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/payment"
)

func main() { app.Main(payment.Run) }
