// Package blob keeps bytes by the SHA-256 of their content: streamed, sealed under the project's key, read at random.
// Artifacts, models, logs and table files live here; a database row says what exists, a driver folder holds the bytes.
package blob

import (
	"context"
	"io"
	"time"
)

// Ref names stored content: Digest is "sha256:" and 64 hex digits of the plain bytes, Size their number.
type Ref struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// Info is a Ref with what the record knows about it.
type Info struct {
	Ref
	Created time.Time `json:"created"`
}

// Finding is one damaged blob: where it belongs, which stored file holds it, and what is wrong, in words.
type Finding struct {
	Project string `json:"project"`
	Digest  string `json:"digest"`
	Stored  string `json:"stored"`
	Problem string `json:"problem"`
}

// Driver keeps sealed files by name, in a folder or a bucket. It sees neither keys nor plain bytes. Names are 32
// lower-case hex digits, made by Store, used once. Implementations are safe for concurrent use.
// The contract is tested by blobtest.Run.
type Driver interface {
	// Upload stores what fill writes under name. When it returns nil, the bytes survive a power cut; when it returns
	// an error (fill's own is passed through), nothing is visible under name. A reader never sees half a file.
	Upload(ctx context.Context, name string, fill func(io.Writer) error) error
	// Open gives the file for reading at random; fault.NotFound when there is none.
	Open(ctx context.Context, name string) (File, error)
	// Discard removes the file, finished or not; that it is not there is no error. Removal need not be durable.
	Discard(ctx context.Context, name string) error
	// List calls fn for every file, also for uploads that were interrupted (Partial), in any order.
	List(ctx context.Context, fn func(Entry) error) error
}

// File is an open stored file; ReadAt is safe for concurrent use.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Entry is one line of Driver.List. Modified is wall time of the last write.
type Entry struct {
	Name     string
	Partial  bool
	Modified time.Time
}
