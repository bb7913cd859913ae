package monitoring

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"time"

	"falaj/internal/serving"
)

// The rows of a spool frame, one after the other: texts with their length, numbers as they are. Only this process and
// its successor read it, and the first byte says which form it is.
const frameForm = 1

var errFrame = errors.New("not a frame of predictions")

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendFloats(b []byte, v []float64) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

// encodeRows writes predictions of one project.
func encodeRows(b []byte, rows []serving.Prediction) ([]byte, error) {
	b = append(b, frameForm)
	b = binary.AppendUvarint(b, uint64(len(rows)))
	for i := range rows {
		p := &rows[i]
		entity := ""
		if p.Entity != nil {
			j, err := json.Marshal(p.Entity)
			if err != nil {
				return nil, err
			}
			entity = string(j)
		}
		for _, s := range []string{p.ID, p.RequestID, p.Model, p.Environment, p.Variant, p.Release, p.Unit, entity, p.FeaturesDigest} {
			b = appendText(b, s)
		}
		b = binary.AppendVarint(b, p.At.UnixMicro())
		b = binary.AppendVarint(b, int64(p.Latency))
		shadow := byte(0)
		if p.Shadow {
			shadow = 1
		}
		b = append(b, shadow)
		b = appendFloats(appendFloats(b, p.Features), p.Output)
	}
	return b, nil
}

// reader takes a frame apart; the first damage makes everything after it zero and sets bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) uvarint() uint64 {
	v, rest, ok := uvarint(r.b)
	if !ok {
		r.fail()
		return 0
	}
	r.b = rest
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) text() string { return string(r.bytes(r.uvarint())) }

func (r *reader) floats() []float64 {
	n := r.uvarint()
	if n > uint64(len(r.b))/8 {
		r.fail()
		return nil
	}
	raw := r.bytes(n * 8)
	if n == 0 {
		return nil
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return out
}

// decodeRows reads what encodeRows wrote.
func decodeRows(project string, b []byte) ([]serving.Prediction, error) {
	r := &reader{b: b}
	if form := r.bytes(1); r.bad || form[0] != frameForm {
		return nil, errFrame
	}
	n := r.uvarint()
	var out []serving.Prediction
	for range n {
		p := serving.Prediction{Project: project, ID: r.text(), RequestID: r.text(), Model: r.text(), Environment: r.text(), Variant: r.text(), Release: r.text(), Unit: r.text()}
		entity := r.text()
		p.FeaturesDigest = r.text()
		p.At = time.UnixMicro(r.varint()).UTC()
		p.Latency = time.Duration(r.varint())
		if s := r.bytes(1); !r.bad {
			p.Shadow = s[0] == 1
		}
		p.Features, p.Output = r.floats(), r.floats()
		if r.bad {
			return nil, errFrame
		}
		if entity != "" {
			if err := json.Unmarshal([]byte(entity), &p.Entity); err != nil {
				return nil, err
			}
		}
		out = append(out, p)
	}
	if len(r.b) != 0 {
		return nil, errFrame
	}
	return out, nil
}
