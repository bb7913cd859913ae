// Command falaj is the MLOps control plane in one binary: `falaj server` runs it, the other commands talk to it.
package main

import (
	"os"

	"falaj/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
