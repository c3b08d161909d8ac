// Command profile is the service that owns what users say of themselves. "profile -h" lists its settings.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/profile"
)

func main() { app.Main(profile.Run) }
