package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"falaj/internal/serving"
)

// A segment is a Parquet file of one key's predictions in the order they were recorded, so that any engine can read the
// log: texts, at (timestamp, UTC), latency (nanoseconds), shadow, and the lists features and output.

// texts are the text columns in file order, by how a row gives them.
func textColumns() []string {
	return []string{"id", "request_id", "variant", "release", "unit", "entity", "features_digest"}
}

func segmentSchema() (*schema.GroupNode, error) {
	var fields schema.FieldList
	for _, name := range textColumns() {
		n, err := schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Required, schema.StringLogicalType{}, parquet.Types.ByteArray, 0, -1)
		if err != nil {
			return nil, err
		}
		fields = append(fields, n)
	}
	at, err := schema.NewPrimitiveNodeLogical("at", parquet.Repetitions.Required, schema.NewTimestampLogicalType(true, schema.TimeUnitMicros), parquet.Types.Int64, 0, -1)
	if err != nil {
		return nil, err
	}
	fields = append(fields, at,
		schema.NewInt64Node("latency_ns", parquet.Repetitions.Required, -1),
		schema.NewBooleanNode("shadow", parquet.Repetitions.Required, -1),
		schema.NewFloat64Node("features", parquet.Repetitions.Repeated, -1),
		schema.NewFloat64Node("output", parquet.Repetitions.Repeated, -1))
	return schema.NewGroupNode("prediction", parquet.Repetitions.Required, fields, -1)
}

// encodeSegment writes rows of one key.
func encodeSegment(rows []serving.Prediction) ([]byte, error) {
	sc, err := segmentSchema()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w, err := file.NewParquetWriterWithError(&buf, sc, file.WithWriterProps(parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithStats(false),
		parquet.WithDictionaryFor("id", false), parquet.WithDictionaryFor("request_id", false), parquet.WithDictionaryFor("features_digest", false), parquet.WithDictionaryFor("output", false))))
	if err != nil {
		return nil, err
	}
	g, err := w.AppendRowGroupChecked()
	if err != nil {
		return nil, err
	}
	if err := writeColumns(g, rows); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

type batchWriter[P any] interface {
	WriteBatch(values []P, defLevels, repLevels []int16) (int64, error)
}

func writeColumn[P any](g file.SerialRowGroupWriter, values []P, def, rep []int16) error {
	c, err := g.NextColumn()
	if err != nil {
		return err
	}
	w, ok := c.(batchWriter[P])
	if !ok {
		return fmt.Errorf("column writer %T", c)
	}
	if _, err := w.WriteBatch(values, def, rep); err != nil {
		return err
	}
	return c.Close()
}

func writeColumns(g file.SerialRowGroupWriter, rows []serving.Prediction) error {
	texts := make([]parquet.ByteArray, len(rows))
	for _, name := range textColumns() {
		for i := range rows {
			b, err := textOf(&rows[i], name)
			if err != nil {
				return err
			}
			texts[i] = b
		}
		if err := writeColumn(g, texts, nil, nil); err != nil {
			return err
		}
	}
	at, latency, shadow := make([]int64, len(rows)), make([]int64, len(rows)), make([]bool, len(rows))
	for i := range rows {
		at[i], latency[i], shadow[i] = rows[i].At.UnixMicro(), int64(rows[i].Latency), rows[i].Shadow
	}
	if err := writeColumn(g, at, nil, nil); err != nil {
		return err
	}
	if err := writeColumn(g, latency, nil, nil); err != nil {
		return err
	}
	if err := writeColumn(g, shadow, nil, nil); err != nil {
		return err
	}
	if err := writeLists(g, rows, func(p *serving.Prediction) []float64 { return p.Features }); err != nil {
		return err
	}
	return writeLists(g, rows, func(p *serving.Prediction) []float64 { return p.Output })
}

func textOf(p *serving.Prediction, column string) (parquet.ByteArray, error) {
	switch column {
	case "id":
		return []byte(p.ID), nil
	case "request_id":
		return []byte(p.RequestID), nil
	case "variant":
		return []byte(p.Variant), nil
	case "release":
		return []byte(p.Release), nil
	case "unit":
		return []byte(p.Unit), nil
	case "features_digest":
		return []byte(p.FeaturesDigest), nil
	}
	if p.Entity == nil {
		return nil, nil
	}
	return json.Marshal(p.Entity)
}

// writeLists writes one repeated column: an empty list is one entry with definition level 0.
func writeLists(g file.SerialRowGroupWriter, rows []serving.Prediction, list func(*serving.Prediction) []float64) error {
	var values []float64
	var def, rep []int16
	for i := range rows {
		v := list(&rows[i])
		if len(v) == 0 {
			def, rep = append(def, 0), append(rep, 0)
		}
		for n := range v {
			def, rep = append(def, 1), append(rep, int16(min(n, 1)))
		}
		values = append(values, v...)
	}
	return writeColumn(g, values, def, rep)
}

// decodeSegment reads what encodeSegment wrote. The key comes from the index.
func decodeSegment(k Key, b []byte) ([]serving.Prediction, error) {
	rd, err := file.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	want, err := segmentSchema()
	if err != nil {
		return nil, err
	}
	if !rd.MetaData().Schema.Equals(schema.NewSchema(want)) || rd.NumRowGroups() != 1 {
		return nil, fmt.Errorf("a segment of another form: %s", rd.MetaData().Schema)
	}
	g := rd.RowGroup(0)
	rows := make([]serving.Prediction, g.NumRows())
	for i := range rows {
		rows[i].Project, rows[i].Model, rows[i].Environment = k.Project, k.Model, k.Environment
	}
	next := 0
	column := func() (file.ColumnChunkReader, error) {
		next++
		return g.Column(next - 1)
	}
	same := map[string]string{} // variants, releases and units repeat: keep each once
	for _, name := range textColumns() {
		c, err := column()
		if err != nil {
			return nil, err
		}
		err = readFlat(c, len(rows), func(i int, v parquet.ByteArray) error {
			s, ok := same[string(v)]
			if !ok {
				s = string(v)
				if name != "id" && name != "request_id" {
					same[s] = s
				}
			}
			return setText(&rows[i], name, s)
		})
		if err != nil {
			return nil, err
		}
	}
	return rows, readNumbers(rows, column)
}

func readNumbers(rows []serving.Prediction, column func() (file.ColumnChunkReader, error)) error {
	c, err := column()
	if err != nil {
		return err
	}
	if err := readFlat(c, len(rows), func(i int, v int64) error { rows[i].At = time.UnixMicro(v).UTC(); return nil }); err != nil {
		return err
	}
	if c, err = column(); err != nil {
		return err
	}
	if err := readFlat(c, len(rows), func(i int, v int64) error { rows[i].Latency = time.Duration(v); return nil }); err != nil {
		return err
	}
	if c, err = column(); err != nil {
		return err
	}
	if err := readFlat(c, len(rows), func(i int, v bool) error { rows[i].Shadow = v; return nil }); err != nil {
		return err
	}
	if c, err = column(); err != nil {
		return err
	}
	if err := readLists(c, len(rows), func(i int, v []float64) { rows[i].Features = v }); err != nil {
		return err
	}
	if c, err = column(); err != nil {
		return err
	}
	return readLists(c, len(rows), func(i int, v []float64) { rows[i].Output = v })
}

func setText(p *serving.Prediction, column, s string) error {
	switch column {
	case "id":
		p.ID = s
	case "request_id":
		p.RequestID = s
	case "variant":
		p.Variant = s
	case "release":
		p.Release = s
	case "unit":
		p.Unit = s
	case "features_digest":
		p.FeaturesDigest = s
	case "entity":
		if s != "" {
			return json.Unmarshal([]byte(s), &p.Entity)
		}
	}
	return nil
}

type batchReader[P any] interface {
	ReadBatch(batchSize int64, values []P, defLvls, repLvls []int16) (total int64, valuesRead int, err error)
}

func readFlat[P any](c file.ColumnChunkReader, n int, set func(int, P) error) error {
	r, ok := c.(batchReader[P])
	if !ok {
		return fmt.Errorf("column reader %T", c)
	}
	values := make([]P, min(n, 4096))
	for i := 0; i < n; {
		_, got, err := r.ReadBatch(int64(min(len(values), n-i)), values, nil, nil)
		if err != nil {
			return err
		}
		if got == 0 {
			return io.ErrUnexpectedEOF
		}
		for _, v := range values[:got] {
			if err := set(i, v); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// readLists reads a repeated column. All lists share one array.
func readLists(c file.ColumnChunkReader, n int, set func(int, []float64)) error {
	r, ok := c.(batchReader[float64])
	if !ok {
		return fmt.Errorf("column reader %T", c)
	}
	var all []float64
	starts := make([]int, 0, n+1)
	values, def, rep := make([]float64, 4096), make([]int16, 4096), make([]int16, 4096)
	for {
		total, got, err := r.ReadBatch(int64(len(values)), values, def, rep)
		if err != nil {
			return err
		}
		if total == 0 {
			break
		}
		at := len(all)
		for i := range int(total) {
			if rep[i] == 0 {
				starts = append(starts, at)
			}
			at += int(def[i])
		}
		all = append(all, values[:got]...)
	}
	if len(starts) != n {
		return io.ErrUnexpectedEOF
	}
	starts = append(starts, len(all))
	for i := range n {
		if a, b := starts[i], starts[i+1]; b > a {
			set(i, all[a:b:b])
		}
	}
	return nil
}
