package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"falaj/internal/blob"
)

// block is tar's unit in bytes.
const block = 512

// packer writes the archive: each part is hashed on its way and gets a line in the list, which waits in a file.
type packer struct {
	sum   hash.Hash // of every byte written
	tar   *tar.Writer
	list  *os.File
	lines *bufio.Writer
	parts hash.Hash // of the list
	count int64
}

func newPacker(w io.Writer, list *os.File) *packer {
	p := &packer{sum: sha256.New(), list: list, parts: sha256.New()}
	p.lines = bufio.NewWriter(io.MultiWriter(list, p.parts))
	p.tar = tar.NewWriter(io.MultiWriter(w, p.sum))
	return p
}

// header is the same for the same name and size: a reader may compare it byte by byte. GNU has sizes above 8 GiB in one block.
func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatGNU}
}

// raw writes an entry that the list does not hold.
func (p *packer) raw(name string, body []byte) error {
	if err := p.tar.WriteHeader(header(name, int64(len(body)))); err != nil {
		return err
	}
	_, err := p.tar.Write(body)
	return err
}

// part writes one entry and its line.
func (p *packer) part(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := p.tar.WriteHeader(header(name, size)); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(p.tar, sum)}, struct{ io.Reader }{blob.Watched(ctx, io.LimitReader(r, size))}, make([]byte, 128<<10))
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes and not %d: %w", name, n, size, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return err
	}
	p.count++
	return writeLine(p.lines, Part{Name: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))})
}

func writeLine(w io.Writer, p Part) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// finish writes the list and its end, after recorded has agreed, and the sum.
func (p *packer) finish(ctx context.Context, mac func([]byte) []byte, recorded func(end) error) error {
	if err := p.lines.Flush(); err != nil {
		return err
	}
	digest := p.parts.Sum(nil)
	size, err := p.list.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = p.list.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	if err := p.tar.WriteHeader(header(partsName, size)); err != nil {
		return err
	}
	if _, err := io.Copy(p.tar, blob.Watched(ctx, p.list)); err != nil {
		return err
	}
	e := end{Parts: hex.EncodeToString(digest), Count: p.count, MAC: hex.EncodeToString(mac(digest))}
	if err := recorded(e); err != nil {
		return err
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := p.raw(endName, b); err != nil {
		return err
	}
	if err := p.tar.Flush(); err != nil {
		return err
	}
	if err := p.raw(sumName, []byte(hex.EncodeToString(p.sum.Sum(nil)))); err != nil {
		return err
	}
	return p.tar.Close()
}

// lastBlocks are the bytes that a whole archive ends with, from the header of the sum on.
func lastBlocks(sum []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(header(sumName, int64(hex.EncodedLen(sha256.Size))))
	if err == nil {
		_, err = w.Write([]byte(hex.EncodeToString(sum)))
	}
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

// lag hashes what is read except for the newest block, which is the header of the sum when the sum is asked for.
type lag struct {
	r     io.Reader
	sum   hash.Hash
	tail  []byte // the newest bytes, at most a block, not yet in sum
	bytes int64
}

func (l *lag) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.bytes += int64(n)
	l.tail = append(l.tail, p[:n]...)
	if over := len(l.tail) - block; over > 0 {
		l.sum.Write(l.tail[:over])
		l.tail = append(l.tail[:0], l.tail[over:]...)
	}
	return n, err
}
