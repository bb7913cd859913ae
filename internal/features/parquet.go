package features

import (
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"falaj/internal/kernel/fault"
)

// parquetRow is one row of a file whose columns are texts, then 64-bit integers, then doubles. The slices are reused.
type parquetRow struct {
	texts   []string
	ints    []int64
	doubles []float64 // NaN is null
}

// readParquet gives the rows of r in order. The file is one that the engine wrote for us: another layout is a defect.
func readParquet(r parquet.ReaderAtSeeker, texts, ints, doubles int, fn func(parquetRow) error) error {
	rd, err := file.NewParquetReader(r)
	if err != nil {
		return unreadable(err)
	}
	defer rd.Close()
	if n := rd.MetaData().Schema.NumColumns(); n != texts+ints+doubles {
		return unreadable(fmt.Errorf("%d columns, want %d", n, texts+ints+doubles))
	}
	row := parquetRow{make([]string, texts), make([]int64, ints), make([]float64, doubles)}
	for g := range rd.NumRowGroups() {
		group := rd.RowGroup(g)
		n := int(group.NumRows())
		var t [][]string
		var i [][]int64
		var d [][]float64
		for c := range texts + ints + doubles {
			col, err := group.Column(c)
			if err != nil {
				return unreadable(err)
			}
			switch {
			case c < texts:
				v, err := readColumn(col, n, "", func(b parquet.ByteArray) string { return string(b) })
				if err != nil {
					return unreadable(err)
				}
				t = append(t, v)
			case c < texts+ints:
				v, err := readColumn(col, n, 0, func(v int64) int64 { return v })
				if err != nil {
					return unreadable(err)
				}
				i = append(i, v)
			default:
				v, err := readColumn(col, n, math.NaN(), func(v float64) float64 { return v })
				if err != nil {
					return unreadable(err)
				}
				d = append(d, v)
			}
		}
		for at := range n {
			for c := range t {
				row.texts[c] = t[c][at]
			}
			for c := range i {
				row.ints[c] = i[c][at]
			}
			for c := range d {
				row.doubles[c] = d[c][at]
			}
			if err := fn(row); err != nil {
				return err
			}
		}
	}
	return nil
}

func unreadable(err error) error {
	return fault.Wrap(err, fault.Internal, "A Parquet file of the engine could not be read.", "")
}

// batchReader is what the typed column readers of the Parquet library have in common.
type batchReader[P any] interface {
	ReadBatch(batchSize int64, values []P, defLvls, repLvls []int16) (total int64, valuesRead int, err error)
}

// readColumn reads n cells of a flat column; null cells become null. conv must copy what it is given.
func readColumn[P, V any](col file.ColumnChunkReader, n int, null V, conv func(P) V) ([]V, error) {
	r, ok := col.(batchReader[P])
	if !ok {
		return nil, fmt.Errorf("column %s has type %s", col.Descriptor().Name(), col.Type())
	}
	out := make([]V, 0, n)
	size := min(n, 4096)
	values, levels := make([]P, size), make([]int16, size)
	full := col.Descriptor().MaxDefinitionLevel()
	for len(out) < n {
		total, got, err := r.ReadBatch(int64(min(size, n-len(out))), values, levels, nil)
		if err != nil {
			return nil, err
		}
		if total == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		next := 0
		for i := range int(total) {
			if full > 0 && levels[i] < full {
				out = append(out, null)
				continue
			}
			if next >= got {
				return nil, io.ErrUnexpectedEOF
			}
			out = append(out, conv(values[next]))
			next++
		}
	}
	return out, nil
}
