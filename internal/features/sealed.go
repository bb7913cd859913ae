package features

import (
	"encoding/binary"
	"fmt"
	"math"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
)

func valueAAD(table string, key [KeySize]byte, event, known int64) []byte {
	b := make([]byte, 0, len(table)+KeySize+17)
	b = append(append(append(b, table...), 0), key[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(event))
	return binary.BigEndian.AppendUint64(b, uint64(known))
}

// sealValues binds values to the place they are stored at: swapped rows do not open.
func sealValues(box *seal.Box, table string, v *Version, values []float64) (err error) {
	b := make([]byte, 0, 8*len(values))
	for _, x := range values {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	v.Sealed, err = box.Seal(b, valueAAD(table, v.Key, v.Event, v.Known))
	return err
}

func openValues(box *seal.Box, table string, key [KeySize]byte, event, known int64, sealed []byte, n int) ([]float64, error) {
	b, err := box.Open(sealed, valueAAD(table, key, event, known))
	if err == nil && len(b) != 8*n {
		err = fmt.Errorf("%d bytes for %d features", len(b), n)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "A value of the online feature store does not open: it was changed or belongs elsewhere.",
			"Materialize the view again: `falaj run` does it.")
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return out, nil
}
