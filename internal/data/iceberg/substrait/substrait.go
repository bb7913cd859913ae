// Package substrait stands in for github.com/substrait-io/substrait through a replace line in go.mod. iceberg-go parses
// every function definition of Substrait while the program starts (0.08 CPU s and 32 MB in each process, workers and CLI
// included) to filter rows, which falaj leaves to DuckDB; so there are none here.
package substrait

import "embed"

//go:embed extensions/*
var extensions embed.FS

// GetSubstraitFS is the old name of GetSubstraitExtensionsFS.
func GetSubstraitFS() embed.FS { return extensions }

// GetSubstraitExtensionsFS gives the definitions, of which one file without any is left.
func GetSubstraitExtensionsFS() embed.FS { return extensions }
