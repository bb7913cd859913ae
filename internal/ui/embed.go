package ui

import (
	"embed"
	"io/fs"
)

// dist holds what `npm run build` in ui/ wrote; only .gitkeep is committed, so that a plain
// `go build` works without Node.
//
//go:embed all:dist
var dist embed.FS

// files is the build folder as the root of a file system.
func files() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the folder is part of the binary: only a broken build can get here
	}
	return sub
}
