// Package sealtest looks for planted values where everything should be sealed.
// It is for tests that run a server and read its folders as a thief would.
package sealtest

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Search reads every file under dir, but for the folders of dir named in skip, and names each that holds one of the canaries.
// What vanishes while it looks is no hit, and links are not followed.
func Search(dir string, canaries []string, skip ...string) (hits []string) {
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return nil
		case e.IsDir() && slices.Contains(skip, rel):
			return fs.SkipDir
		case !e.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, c := range canaries {
			if bytes.Contains(b, []byte(c)) {
				hits = append(hits, c+" in "+strings.TrimPrefix(rel, "./"))
			}
		}
		return nil
	})
	return hits
}
