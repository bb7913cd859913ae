package monitoring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/id"
	"falaj/internal/kernel/seal"
	"falaj/internal/serving"
)

// A spool file takes predictions as they come: frames of length, checksum, project and sealed rows. A frame is whole in
// the file before Record returns, so a killed process loses nothing; what the machine's power takes is at most the
// frames since the last sync. A cut or damaged frame at the end is dropped at the next start.
const (
	spoolSuffix = ".spool"
	frameHead   = 8        // length and CRC-32C of what follows
	maxFrame    = 64 << 20 // a longer one is damage
)

// generation is one spool file and its rows in memory, until they are in segments.
type generation struct {
	id     string
	file   *os.File // nil for one of an earlier process
	size   int64    // of whole frames
	synced int64
	born   time.Time
	rows   int
	groups map[Key]*group
}

// group is the rows of one key, append-only: a reader keeps the slice it saw.
type group struct {
	rows     []serving.Prediction
	from, to int64 // event time of the earliest and the latest row, microseconds
}

func (g *generation) add(rows []serving.Prediction) {
	for i := range rows {
		p := &rows[i]
		k := Key{p.Project, p.Model, p.Environment}
		gr, at := g.groups[k], p.At.UnixMicro()
		if gr == nil {
			gr = &group{from: at, to: at}
			g.groups[k] = gr
		}
		gr.rows = append(gr.rows, *p)
		gr.from, gr.to = min(gr.from, at), max(gr.to, at)
	}
	g.rows += len(rows)
}

func newGeneration(root *os.Root) (*generation, error) {
	g := &generation{id: id.New("spl"), born: time.Now(), groups: map[Key]*group{}}
	f, err := root.OpenFile(g.id+spoolSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, spoolFault(err)
	}
	g.file = f
	return g, nil
}

func spoolFault(err error) error {
	return fault.Wrap(err, fault.Unavailable, "The prediction log cannot be written.", "Free space on the volume of the data directory, and check its owner and mode.")
}

func frameAAD(spool, project string) []byte {
	return []byte("prediction-spool\x00" + spool + "\x00" + project)
}

// frame makes the bytes of one frame.
func frame(box *seal.Box, spool, project string, rows []serving.Prediction) ([]byte, error) {
	plain, err := encodeRows(nil, rows)
	if err != nil {
		return nil, err
	}
	sealed, err := box.Seal(plain, frameAAD(spool, project))
	if err != nil {
		return nil, err
	}
	b := make([]byte, frameHead, frameHead+len(project)+len(sealed)+4)
	b = append(appendText(b, project), sealed...)
	if len(b) > maxFrame {
		return nil, fault.New(fault.TooLarge, "One request has more predictions than the log takes at once.", "Send fewer rows in a request.")
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-frameHead))
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[frameHead:], crc32.MakeTable(crc32.Castagnoli)))
	return b, nil
}

// append writes one frame whole or not at all: after a failed write the file is cut back.
func (g *generation) append(b []byte) error {
	if n, err := g.file.WriteAt(b, g.size); err != nil {
		if n > 0 {
			err = errors.Join(err, g.file.Truncate(g.size))
		}
		return spoolFault(err)
	}
	g.size += int64(len(b))
	return nil
}

// readSpool reads an earlier process's file. Lost is how many bytes at the end are no whole frame, damaged whether they
// are there but wrong: a cut tail is what a crash leaves, anything else is not.
func readSpool(root *os.Root, name string, open func(project string) (*seal.Box, error)) (g *generation, lost int64, damaged bool, err error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, 0, false, spoolFault(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, false, spoolFault(err)
	}
	g = &generation{id: strings.TrimSuffix(name, spoolSuffix), born: st.ModTime(), groups: map[Key]*group{}}
	head := make([]byte, frameHead)
	for {
		left := st.Size() - g.size
		if left < frameHead {
			return g, left, false, nil
		}
		if _, err := f.ReadAt(head, g.size); err != nil {
			return nil, 0, false, spoolFault(err)
		}
		n := int64(binary.LittleEndian.Uint32(head))
		if n > maxFrame {
			return g, left, !empty(f, g.size, left), nil
		}
		if n > left-frameHead {
			return g, left, false, nil
		}
		body := make([]byte, n)
		if _, err := f.ReadAt(body, g.size+frameHead); err != nil {
			return nil, 0, false, spoolFault(err)
		}
		if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(head[4:]) || n == 0 {
			return g, left, !empty(f, g.size, left), nil
		}
		rows, err := openFrame(g.id, body, open)
		if errors.Is(err, errFrame) || errors.Is(err, seal.ErrDamaged) {
			return g, left, true, nil
		}
		if err != nil {
			return nil, 0, false, err
		}
		g.add(rows)
		g.size += frameHead + n
	}
}

// empty says whether a tail is all zero: some file systems leave that after a power loss.
func empty(f io.ReaderAt, from, n int64) bool {
	b := make([]byte, 64<<10)
	for n > 0 {
		got, err := f.ReadAt(b[:min(n, int64(len(b)))], from)
		if got == 0 || slices.ContainsFunc(b[:got], func(c byte) bool { return c != 0 }) {
			return false
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		from, n = from+int64(got), n-int64(got)
	}
	return true
}

func openFrame(spool string, body []byte, open func(project string) (*seal.Box, error)) ([]serving.Prediction, error) {
	r := &reader{b: body}
	project := r.text()
	if r.bad {
		return nil, errFrame
	}
	box, err := open(project)
	if err != nil {
		return nil, err
	}
	plain, err := box.Open(r.b, frameAAD(spool, project))
	if err != nil {
		return nil, err
	}
	return decodeRows(project, plain)
}

// spools lists the files of earlier processes, oldest first (their ids sort by time).
func spools(root *os.Root) ([]string, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "The folder of the prediction log cannot be read.", "Check owner and mode of the data directory.")
	}
	var out []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), spoolSuffix) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// setAside keeps a damaged file for a person to look at; its whole frames are used.
func setAside(root *os.Root, name string) error {
	return root.Rename(name, fmt.Sprintf("%s.damaged", name))
}
