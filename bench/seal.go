package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"falaj/internal/kernel/seal"
)

// sealing measures what stored bytes cost beside raw AES-256-GCM of 1 MiB pieces, in the same run, per GB.
func sealing(_ context.Context, b *bench) ([]row, error) {
	const size, rounds = 64 << 20, 16 // 1 GiB each
	plain := make([]byte, size)
	rand.Read(plain)
	keys, err := seal.Open(filepath.Join(b.temp, "keys"))
	if err != nil {
		return nil, err
	}
	wrapped, err := keys.NewDataKey("bench")
	if err != nil {
		return nil, err
	}
	box, err := keys.Box(wrapped, "bench")
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	key := box.NewObjectKey()
	var sealed bytes.Buffer
	sealed.Grow(size + size>>8)
	out, nonce := make([]byte, 0, 1<<20+gcm.Overhead()), make([]byte, gcm.NonceSize())
	var rows []row
	for _, x := range []struct {
		what string
		run  func() error
	}{
		{"raw AES-256-GCM, 1 MiB pieces", func() error {
			for at := 0; at < size; at += 1 << 20 {
				rand.Read(nonce)
				gcm.Seal(out, nonce, plain[at:at+1<<20], nil)
			}
			return nil
		}},
		{"sealing stored bytes", func() error {
			sealed.Reset()
			w, err := seal.EncryptWriter(&sealed, key)
			if err != nil {
				return err
			}
			if _, err := w.Write(plain); err != nil {
				return err
			}
			return w.Close()
		}},
		{"opening stored bytes", func() error {
			r, err := seal.DecryptReader(bytes.NewReader(sealed.Bytes()), key)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return err
		}},
	} {
		before, begin := ownCPU(), time.Now()
		for range rounds {
			if err := x.run(); err != nil {
				return rows, err
			}
		}
		r := row{What: x.what, N: 1, Unit: "GiB", CPU: ownCPU() - before, Wall: time.Since(begin)}
		if len(rows) > 0 {
			r.Note = fmt.Sprintf("%.2f times raw AES-256-GCM", float64(r.CPU)/float64(max(rows[0].CPU, tick)))
		}
		rows = append(rows, r)
	}
	return rows, nil
}
