package duckdb

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"falaj/internal/kernel/fault"
)

// SocketFD is the file descriptor of the child's end of the socket pair.
const SocketFD = 3

// maxFrame bounds one message, in bytes: rows to look at are the largest thing that travels, data goes by file.
const maxFrame = 64 << 20

// Request is the one message a child receives. Job is the JSON of the data package's job of that Op.
type Request struct {
	Op     string          `json:"op"` // ingest, transform, pit, profile, query, columns
	Job    json.RawMessage `json:"job"`
	Limits Limits          `json:"limits"`
}

// Limits bound one child. Memory is DuckDB's own limit in bytes; the process may take Overhead more for Go, stacks and
// code. FileBytes bounds each file it writes and its spill folder; CPUSeconds the whole process.
type Limits struct {
	Memory     int64 `json:"memory"`
	Overhead   int64 `json:"overhead"`
	Threads    int   `json:"threads"`
	FileBytes  int64 `json:"file_bytes"`
	CPUSeconds int64 `json:"cpu_seconds"`
}

// Reply is the one message a child sends: a result, or a fault.
type Reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Fault  *Fault          `json:"fault,omitempty"`
}

// Fault is fault.E on the wire; Cause is for the log only.
type Fault struct {
	Kind   fault.Kind `json:"kind"`
	Public string     `json:"public"`
	Next   string     `json:"next"`
	Field  string     `json:"field,omitempty"`
	Cause  string     `json:"cause,omitempty"`
}

// WriteFrame sends v as a big-endian 32-bit length and that many bytes of JSON.
func WriteFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("frame of %d bytes is above %d", len(body), maxFrame)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// ReadFrame receives what WriteFrame sent. io.EOF means that the other side closed before a frame began.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes is above %d", n, maxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("frame cut short: %w", err)
	}
	return json.Unmarshal(body, v)
}
