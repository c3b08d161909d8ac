// Command search is the service that finds users and products. "search -h" lists its settings.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/search"
)

func main() { app.Main(search.Run) }
