// Command converge is the operator's tool.
package main

import "github.com/converge-dev/converge/services/cli"

func main() { cli.Main() }
