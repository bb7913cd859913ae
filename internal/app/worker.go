package app

import (
	"fmt"
	"io"

	"falaj/internal/data/duckdb/worker"
	"falaj/internal/training/process"
)

// Worker is the child side of `falaj worker NAME`: native code and user code run there, never in the server. It returns the
// exit code.
func Worker(name string, in io.Reader, errw io.Writer) int {
	switch name {
	case "duckdb":
		return worker.Main()
	case "exec":
		return process.ExecMain(in)
	}
	fmt.Fprintf(errw, "There is no worker '%s'; workers are started by the server.\n", name)
	return 2
}
