package data

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"falaj/internal/kernel/fault"
)

// checkSourceName refuses names that are no plain relative path.
func checkSourceName(name string) error {
	if !fs.ValidPath(name) || name == "." || len(name) > 1024 || strings.ContainsAny(name, "\x00\n\\") {
		return fault.New(fault.Invalid, fmt.Sprintf("%.80q is not a name for a source file.", name), "Use a relative path with /, without .. in it.").At("source")
	}
	return nil
}

// Glob lists the files of a folder that a pattern of falaj.yaml matches, sorted. A pattern is relative, with / and
// without ..; * and ? match within one folder. One that matches nothing is fault.Invalid: a dataset without files is a
// mistake more often than not.
func Glob(fsys fs.FS, pattern string) ([]string, error) {
	clean := path.Clean(strings.TrimPrefix(pattern, "./"))
	if !fs.ValidPath(clean) || path.IsAbs(pattern) {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("The pattern %q leads out of the project's folder.", pattern), "Give a path relative to falaj.yaml, without ..").At("source")
	}
	all, err := fs.Glob(fsys, clean)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, fmt.Sprintf("%q is not a pattern.", pattern), "* and ? match within one folder, [a-z] one character.").(*fault.E).At("source")
	}
	var out []string
	for _, name := range all {
		if st, err := fs.Stat(fsys, name); err == nil && st.Mode().IsRegular() {
			out = append(out, name)
		}
	}
	if out == nil {
		return nil, fault.New(fault.Invalid, fmt.Sprintf("No file matches %q.", pattern), "Check the pattern and that the files are there; it is relative to falaj.yaml.").At("source")
	}
	return out, nil
}

// freeRatio is how much a zip may unpack to whatever its size: short texts compress far better than long ones.
const freeRatio = 16 << 20

// unpack lays a source file out in clear; a zip must hold exactly one file, which is taken out under the limits.
func (s *Service) unpack(ctx context.Context, project string, f SourceFile, room *Room) (string, error) {
	in, err := s.blobs.Open(ctx, project, f.Digest)
	if err != nil {
		return "", err
	}
	defer in.Close()
	var magic [4]byte
	if n, _ := in.ReadAt(magic[:], 0); n < 4 || string(magic[:]) != "PK\x03\x04" {
		return s.layOut(ctx, project, f.Digest, room, "source")
	}
	bad := func(kind fault.Kind, format string, args ...any) error {
		return fault.New(kind, f.Name+" "+fmt.Sprintf(format, args...), "Send the file itself, or a zip with that one file in it.").At("source")
	}
	z, err := zip.NewReader(in, in.Size())
	if err != nil {
		return "", bad(fault.Invalid, "starts like a zip and is not one.")
	}
	var member *zip.File
	for _, m := range z.File {
		if m.FileInfo().IsDir() {
			continue
		}
		if member != nil {
			return "", bad(fault.Invalid, "holds %d files, and a source is one.", len(z.File))
		}
		member = m
	}
	if member == nil {
		return "", bad(fault.Invalid, "is an empty zip.")
	}
	// The sizes that a zip states are not believed: what comes out is counted.
	limit := min(s.limits.Unpacked, max(freeRatio, in.Size()*s.limits.Ratio))
	src, err := member.Open()
	if err != nil {
		return "", bad(fault.Invalid, "is a zip that cannot be unpacked (%v).", err)
	}
	defer src.Close()
	out, err := room.Create("source")
	if err != nil {
		return "", fault.Wrap(err, fault.Unavailable, "The scratch folder cannot be written.", "See `falaj doctor`: it may be full.")
	}
	path := room.Path("source")
	n, err := io.Copy(out, io.LimitReader(src, limit+1))
	if cerr := out.Close(); err == nil && cerr != nil {
		return path, fault.Wrap(cerr, fault.Unavailable, "The scratch folder cannot be written.", "See `falaj doctor`: it may be full.")
	}
	if err != nil {
		return path, bad(fault.Invalid, "is a zip that cannot be unpacked (%v).", err)
	}
	if n > limit {
		return path, bad(fault.TooLarge, "unpacks to more than %d MiB from %d KiB, which looks like a zip bomb.", limit>>20, in.Size()>>10)
	}
	return path, nil
}
