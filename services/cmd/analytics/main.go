// Command analytics is the service that counts what happens. "analytics -h" lists its settings.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/analytics"
)

func main() { app.Main(analytics.Run) }
