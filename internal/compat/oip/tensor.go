package oip

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"falaj/internal/kernel/fault"
)

// tensor is one named input. Exactly one of the slices holds its values, row-major, by datatype.
type tensor struct {
	name     string
	datatype string
	shape    []int64
	floats   []float64 // FP16, BF16, FP32, FP64
	ints     []int64   // INT*, UINT*
	bools    []bool
	strings  []string // BYTES
	binary   int      // size in the binary part, -1 when the values are in the JSON
	filled   bool
}

func invalid(field, format string, a ...any) error {
	return fault.New(fault.Invalid, fmt.Sprintf(format, a...), "GET /v2/models/MODEL shows the inputs that the model takes.").At(field)
}

// kind maps a datatype to the slice that holds it and its size in bytes; 0 bytes is BYTES.
func kind(datatype string) (slice byte, size int) {
	switch datatype {
	case "BOOL":
		return 'b', 1
	case "INT8", "UINT8":
		return 'i', 1
	case "INT16", "UINT16":
		return 'i', 2
	case "INT32", "UINT32":
		return 'i', 4
	case "INT64", "UINT64":
		return 'i', 8
	case "FP16", "BF16":
		return 'f', 2
	case "FP32":
		return 'f', 4
	case "FP64":
		return 'f', 8
	case "BYTES":
		return 's', 0
	}
	return 0, 0
}

// check settles name, datatype and shape, and returns the number of elements.
func (t *tensor) check() (int, error) {
	if t.name == "" {
		return 0, invalid("inputs", "An input has no name.")
	}
	if k, _ := kind(t.datatype); k == 0 {
		return 0, invalid(t.name, "Input %q has the datatype %q, which is not one of the protocol.", t.name, t.datatype)
	}
	if len(t.shape) < 1 || len(t.shape) > 2 {
		return 0, invalid(t.name, "Input %q has %d dimensions; a tensor here is [rows] or [rows, columns].", t.name, len(t.shape))
	}
	n := int64(1)
	for _, d := range t.shape {
		if d < 0 || d > math.MaxInt32 || n*d > math.MaxInt32 {
			return 0, invalid(t.name, "Input %q has the shape %v.", t.name, t.shape)
		}
		n *= d
	}
	return int(n), nil
}

// count is the number of values that were read.
func (t *tensor) count() int {
	return len(t.floats) + len(t.ints) + len(t.bools) + len(t.strings)
}

func (t *tensor) rows() int { return int(t.shape[0]) }

// columns is 1 for a tensor of one dimension.
func (t *tensor) columns() int {
	if len(t.shape) == 1 {
		return 1
	}
	return int(t.shape[1])
}

// number gives the values as float64. Integers beyond 2^53 have no such value and are refused.
func (t *tensor) numbers() ([]float64, error) {
	switch k, _ := kind(t.datatype); k {
	case 'f':
		return t.floats, nil
	case 'i':
		out := make([]float64, len(t.ints))
		for i, v := range t.ints {
			if v > 1<<53 || v < -(1<<53) {
				return nil, invalid(t.name, "Input %q holds %d, which has no exact FP64.", t.name, v)
			}
			out[i] = float64(v)
		}
		return out, nil
	case 'b':
		out := make([]float64, len(t.bools))
		for i, v := range t.bools {
			if v {
				out[i] = 1
			}
		}
		return out, nil
	}
	return nil, invalid(t.name, "Input %q is text where the model takes numbers.", t.name)
}

// value is one element as the feature lookup takes it: float64, int64, bool or string; a NaN is nil, a missing value.
func (t *tensor) value(i int) any {
	switch k, _ := kind(t.datatype); k {
	case 'f':
		if math.IsNaN(t.floats[i]) {
			return nil
		}
		return t.floats[i]
	case 'i':
		return t.ints[i]
	case 'b':
		return t.bools[i]
	}
	return t.strings[i]
}

// decode fills a tensor from the binary extension's bytes (little-endian; BYTES elements with a 4-byte length each).
func (t *tensor) decode(b []byte) error {
	n, err := t.check()
	if err != nil {
		return err
	}
	k, size := kind(t.datatype)
	if k == 's' {
		t.strings = make([]string, 0, min(n, len(b)/4))
		for len(b) > 0 {
			if len(b) < 4 || uint64(len(b)-4) < uint64(binary.LittleEndian.Uint32(b)) {
				return invalid(t.name, "The binary data of input %q is cut off.", t.name)
			}
			l := binary.LittleEndian.Uint32(b)
			s := string(b[4 : 4+l])
			if strings.ToValidUTF8(s, "") != s {
				return invalid(t.name, "Input %q holds text that is not UTF-8.", t.name)
			}
			t.strings, b = append(t.strings, s), b[4+l:]
		}
		return nil
	}
	if len(b) != n*size {
		return invalid(t.name, "The binary data of input %q has %d bytes; its shape and datatype need %d.", t.name, len(b), n*size)
	}
	switch k {
	case 'f':
		t.floats = make([]float64, n)
	case 'i':
		t.ints = make([]int64, n)
	case 'b':
		t.bools = make([]bool, n)
	}
	le := binary.LittleEndian
	for i := range n {
		e := b[i*size:]
		switch t.datatype {
		case "BOOL":
			t.bools[i] = e[0] != 0
		case "INT8":
			t.ints[i] = int64(int8(e[0]))
		case "UINT8":
			t.ints[i] = int64(e[0])
		case "INT16":
			t.ints[i] = int64(int16(le.Uint16(e)))
		case "UINT16":
			t.ints[i] = int64(le.Uint16(e))
		case "INT32":
			t.ints[i] = int64(int32(le.Uint32(e)))
		case "UINT32":
			t.ints[i] = int64(le.Uint32(e))
		case "INT64":
			t.ints[i] = int64(le.Uint64(e))
		case "UINT64":
			if t.ints[i] = int64(le.Uint64(e)); t.ints[i] < 0 {
				return invalid(t.name, "Input %q holds a UINT64 beyond INT64.", t.name)
			}
		case "FP16":
			t.floats[i] = half(le.Uint16(e))
		case "BF16":
			t.floats[i] = float64(math.Float32frombits(uint32(le.Uint16(e)) << 16))
		case "FP32":
			t.floats[i] = float64(math.Float32frombits(le.Uint32(e)))
		case "FP64":
			t.floats[i] = math.Float64frombits(le.Uint64(e))
		}
	}
	return nil
}

// half widens an IEEE 754 binary16; every value of it is exact in float64.
func half(h uint16) float64 {
	sign, exp, frac := 1.0, int(h>>10&31), float64(h&1023)
	if h>>15 == 1 {
		sign = -1
	}
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 31:
		if frac == 0 {
			return math.Inf(int(sign))
		}
		return math.NaN()
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}
