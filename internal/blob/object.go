package blob

import (
	"bufio"
	"context"
	"errors"
	"io"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
)

// Object is opened content: plain bytes, read in order or at random. ReadAt is safe for concurrent use, Read and
// Seek are not. Every byte it returns is authentic; a damaged part gives an error that names the blob.
type Object struct {
	row  row
	file File
	key  seal.ObjectKey
	at   io.ReaderAt

	pos    int64     // of Read
	stream io.Reader // delivers from pos on; nil after Seek
}

var _ interface {
	io.ReadSeekCloser
	io.ReaderAt
} = (*Object)(nil)

// Open opens content for reading; fault.NotFound when there is none. Close it.
func (s *Store) Open(ctx context.Context, project, digest string) (*Object, error) {
	r, err := s.row(ctx, project, digest)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, r)
}

func (s *Store) open(ctx context.Context, r row) (*Object, error) {
	box, err := s.Box(ctx, r.project)
	if err != nil {
		return nil, err
	}
	key, err := box.UnwrapObjectKey(r.wrapped, objectAAD(r.project, r.digest))
	if err != nil {
		return nil, r.damaged("its key does not open: the row or its file was changed")
	}
	f, err := s.openFile(ctx, r)
	if err != nil {
		return nil, err
	}
	at, err := seal.DecryptReaderAt(f, key)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Object{row: r, file: f, key: key, at: at}, nil
}

// Size is the number of plain bytes.
func (o *Object) Size() int64 { return o.row.size }

// Digest is the address of the content.
func (o *Object) Digest() string { return o.row.digest }

// ReadAt follows io.ReaderAt; it decrypts only the 64 KiB packages it touches.
func (o *Object) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.at.ReadAt(p, off)
	return n, o.explain(err)
}

// Read follows io.Reader. From the start it streams; after Seek it reads ahead 256 KiB at a time.
func (o *Object) Read(p []byte) (int, error) {
	if o.stream == nil {
		if err := o.restart(); err != nil {
			return 0, err
		}
	}
	n, err := o.stream.Read(p)
	o.pos += int64(n)
	return n, o.explain(err)
}

func (o *Object) restart() (err error) {
	if o.pos == 0 {
		o.stream, err = seal.DecryptReader(io.NewSectionReader(o.file, 0, o.file.Size()), o.key)
		return err
	}
	o.stream = bufio.NewReaderSize(io.NewSectionReader(o.at, o.pos, max(0, o.row.size-o.pos)), 256<<10)
	return nil
}

// Seek follows io.Seeker.
func (o *Object) Seek(offset int64, whence int) (int64, error) {
	base := map[int]int64{io.SeekStart: 0, io.SeekCurrent: o.pos, io.SeekEnd: o.row.size}
	from, known := base[whence]
	if !known || from+offset < 0 {
		return o.pos, fault.New(fault.Invalid, "A read was asked before the start of the content.", "Ask for an offset of 0 or more.")
	}
	if to := from + offset; to != o.pos {
		o.pos, o.stream = to, nil
	}
	return o.pos, nil
}

// Close releases the stored file.
func (o *Object) Close() error { return o.file.Close() }

func (o *Object) explain(err error) error {
	if errors.Is(err, seal.ErrDamaged) {
		return o.row.damaged("its bytes were changed")
	}
	return err
}
