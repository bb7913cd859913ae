package seal

import (
	"errors"
	"io"

	"github.com/minio/sio"

	"falaj/internal/kernel/fault"
)

// marker is the first plain byte of every stream. DARE writes nothing at all for an empty stream, so without it
// an object cut to zero bytes would look like an honest empty one. It also names the format of what follows.
const marker = 1

// markerSize is how far the caller's offsets are shifted inside the stream, in bytes.
const markerSize = 1

func config(key ObjectKey) (sio.Config, error) {
	if key == (ObjectKey{}) {
		return sio.Config{}, fault.New(fault.Internal, "A stream was opened without a key.", "")
	}
	return sio.Config{
		MinVersion:   sio.Version20, // 1.0 does not notice a cut-off end
		MaxVersion:   sio.Version20,
		CipherSuites: []byte{sio.AES_256_GCM},
		Key:          key.b[:],
	}, nil
}

// EncryptWriter returns a writer that seals what is written into w, in packages of 64 KiB plain bytes. Close
// finishes the stream and must succeed; it does not close w (sio alone would, so w is hidden from it).
// At most 64 KiB are held in memory.
func EncryptWriter(w io.Writer, key ObjectKey) (io.WriteCloser, error) {
	cfg, err := config(key)
	if err != nil {
		return nil, err
	}
	enc, err := sio.EncryptWriter(struct{ io.Writer }{w}, cfg)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A stream could not be sealed.", "")
	}
	ew := &encryptWriter{enc: enc}
	if _, err := ew.Write([]byte{marker}); err != nil {
		return nil, err
	}
	return ew, nil
}

// encryptWriter turns sio's panic on a write after Close into an error, and stays failed after a failed write:
// a stream with a hole must never be finished. Not safe for concurrent use.
type encryptWriter struct {
	enc io.WriteCloser
	err error
}

func (w *encryptWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.enc.Write(p)
	w.err = err
	return n, err
}

func (w *encryptWriter) Close() error {
	if w.err != nil {
		if errors.Is(w.err, errClosed) {
			return nil
		}
		return w.err
	}
	if w.err = w.enc.Close(); w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

var errClosed = errors.New("seal: the stream is closed")

// DecryptReader returns the plain bytes of a sealed stream, in order. A changed, reordered or cut stream gives
// ErrDamaged instead of io.EOF; bytes returned before that are authentic.
func DecryptReader(r io.Reader, key ObjectKey) (io.Reader, error) {
	cfg, err := config(key)
	if err != nil {
		return nil, err
	}
	dec, err := sio.DecryptReader(r, cfg)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A sealed stream could not be opened.", "")
	}
	return &decryptReader{dec: dec}, nil
}

type decryptReader struct {
	dec    io.Reader
	begun  bool
	failed error
}

func (r *decryptReader) Read(p []byte) (int, error) {
	if r.failed != nil {
		return 0, r.failed
	}
	if !r.begun {
		var first [markerSize]byte
		if _, err := io.ReadFull(r.dec, first[:]); err != nil || first[0] != marker {
			r.failed = explain(err)
			if err == nil || errors.Is(err, io.EOF) {
				r.failed = damaged("sealed stream")
			}
			return 0, r.failed
		}
		r.begun = true
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.dec.Read(p)
	if err != nil {
		r.failed = explain(err)
	}
	return n, r.failed
}

// DecryptReaderAt gives random access to the plain bytes of a sealed stream: a read touches only the packages it
// needs. It is safe for concurrent use when r is. Each package read is authenticated together with its position;
// that the stream has its full length is the caller's to check, with PlainSize against the known size.
func DecryptReaderAt(r io.ReaderAt, key ObjectKey) (io.ReaderAt, error) {
	cfg, err := config(key)
	if err != nil {
		return nil, err
	}
	dec, err := sio.DecryptReaderAt(r, cfg)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A sealed stream could not be opened.", "")
	}
	return decryptReaderAt{dec}, nil
}

type decryptReaderAt struct{ dec io.ReaderAt }

func (r decryptReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Invalid, "A read was asked at a negative offset.", "Ask for an offset of 0 or more.")
	}
	n, err := r.dec.ReadAt(p, off+markerSize)
	return n, explain(err)
}

// explain maps sio's refusals to ErrDamaged; io.EOF and errors of the underlying reader pass unchanged.
func explain(err error) error {
	var refused sio.Error
	if errors.As(err, &refused) {
		return damaged("sealed stream")
	}
	return err
}

// PlainSize returns the plain size in bytes of a sealed stream of sealedSize bytes, or ErrDamaged when no stream
// has that size.
func PlainSize(sealedSize int64) (int64, error) {
	if sealedSize <= 0 {
		return 0, damaged("sealed stream")
	}
	n, err := sio.DecryptedSize(uint64(sealedSize))
	if err != nil || n < markerSize {
		return 0, damaged("sealed stream")
	}
	return int64(n) - markerSize, nil
}

// SealedSize returns the size in bytes that a stream of plainSize bytes takes when sealed; plainSize is at most
// 256 TiB.
func SealedSize(plainSize int64) (int64, error) {
	if plainSize < 0 {
		return 0, fault.New(fault.Invalid, "A negative size cannot be sealed.", "Give a size of 0 or more bytes.")
	}
	n, err := sio.EncryptedSize(uint64(plainSize) + markerSize)
	if err != nil {
		return 0, fault.Wrap(err, fault.TooLarge, "One object holds at most 256 TiB.", "Split it.")
	}
	return int64(n), nil
}
