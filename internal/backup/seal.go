package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"falaj/internal/kernel/seal"
)

// window bounds what packing and unpacking hold in memory, in bytes.
const window = 4 << 20

// sealInto writes r into w: compressed first, for sealed bytes do not compress.
func sealInto(w io.Writer, key seal.ObjectKey, r io.Reader) error {
	enc, err := seal.EncryptWriter(w, key)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(enc, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{z}, struct{ io.Reader }{r}, make([]byte, 128<<10))
	if err := errors.Join(err, z.Close()); err != nil {
		return err
	}
	return enc.Close()
}

// sealFile keeps r sealed in a new file and gives its size.
func sealFile(path string, key seal.ObjectKey, r io.Reader) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	err = sealInto(f, key, r)
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	return size, errors.Join(err, f.Close())
}

// unseal writes the plain bytes of a sealed part. The error is seal.ErrDamaged where the bytes do not authenticate.
func unseal(w io.Writer, key seal.ObjectKey, r io.Reader) error {
	dec, err := seal.DecryptReader(r, key)
	if err != nil {
		return err
	}
	z, err := zstd.NewReader(dec, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{z}, make([]byte, 128<<10)); err != nil {
		return err
	}
	// What stands behind the last frame must authenticate, too: the end of the sealed stream proves that none was cut.
	_, err = io.Copy(io.Discard, dec)
	return err
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hexOf(s[:])
}
