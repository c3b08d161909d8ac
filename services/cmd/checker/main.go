// Command checker is the checker. Its settings are environment variables, which -h lists.
package main

import (
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/services/checker"
)

func main() { app.Main(checker.Run) }
