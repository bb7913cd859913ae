package oip

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"falaj/internal/door"
	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/policy"
	"falaj/internal/serving"
	"falaj/internal/store"
)

// The outputs that a model answers. predict is the only one when a request names none.
const (
	predict      = "predict"
	predictionID = "prediction_id"
	variant      = "variant"
	release      = "release"
)

// binaryHeader is the length of the JSON part of a body that has a binary part.
const binaryHeader = "Inference-Header-Content-Length"

func (a *api) infer(w http.ResponseWriter, r *http.Request) error {
	buf := a.bodies.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= 1<<20 {
			a.bodies.Put(buf)
		}
	}()
	body, err := readBody(r, (*buf)[:0])
	if err != nil {
		return err
	}
	*buf = body
	head, tail := body, []byte(nil)
	if h := r.Header.Get(binaryHeader); h != "" {
		n, err := strconv.Atoi(h)
		if err != nil || n < 0 || n > len(body) {
			return invalid(binaryHeader, "The header %s is %q for a body of %d bytes.", binaryHeader, h, len(body))
		}
		head, tail = body[:n], body[n:]
	}
	req, err := parse(head)
	if err != nil {
		return err
	}
	if err := req.take(tail); err != nil {
		return err
	}
	if err := checkOutputs(req.outputs); err != nil {
		return err
	}
	ask, err := a.translate(r, req)
	if err != nil {
		return err
	}
	got, err := a.Serving.Predict(r.Context(), ask)
	if err != nil {
		return err
	}
	return respond(w, r.PathValue("model"), req, got)
}

// readBody appends the body to buf, decompressed.
func readBody(r *http.Request, buf []byte) ([]byte, error) {
	var in io.Reader = r.Body
	switch e := r.Header.Get("Content-Encoding"); e {
	case "", "identity":
		if r.ContentLength > 0 && r.ContentLength <= maxBody {
			buf = slices.Grow(buf, int(r.ContentLength)+1)
		}
	case "gzip", "deflate":
		var err error
		if e == "gzip" {
			in, err = gzip.NewReader(r.Body)
		} else {
			in, err = zlib.NewReader(r.Body)
		}
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "The body is not "+e+" as its Content-Encoding says.", "")
		}
		in = io.LimitReader(in, maxBody+1)
	default:
		return nil, fault.New(fault.Unsupported, fmt.Sprintf("The Content-Encoding %q is not taken.", e), "Send gzip, deflate or none.")
	}
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, 4096)
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		var tooBig *http.MaxBytesError
		switch {
		case errors.As(err, &tooBig) || len(buf) > maxBody:
			return nil, fault.New(fault.TooLarge, fmt.Sprintf("The request has more than %d bytes.", maxBody), "Send several requests.")
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return nil, fault.Wrap(err, fault.Invalid, "The body could not be read to its end.", "")
		}
	}
}

// translate turns tensors into serving's request: by entity when every entity key of the feature service is there, else a matrix.
func (a *api) translate(r *http.Request, req *request) (serving.Request, error) {
	k := key(r)
	out := serving.Request{Key: k, ID: req.id, Release: r.PathValue("version"), Units: req.units}
	d, err := a.Serving.Describe(k, out.Release)
	if err != nil {
		return out, err
	}
	if len(req.at) > 0 {
		if err := a.mayReplay(r); err != nil {
			return out, err
		}
		out.Replay = true
		for _, us := range req.at {
			out.At = append(out.At, time.UnixMicro(us).UTC())
		}
	}
	rows := req.inputs[0].rows()
	for i := range req.inputs {
		if n := req.inputs[i].rows(); n != rows {
			return out, invalid(req.inputs[i].name, "Input %q has %d rows and input %q has %d.", req.inputs[i].name, n, req.inputs[0].name, rows)
		}
	}
	if rows > serving.MaxRows {
		return out, fault.New(fault.TooLarge, fmt.Sprintf("The request has %d rows, allowed are %d.", rows, serving.MaxRows), "Send several requests.")
	}
	if len(d.Inputs.Entity) > 0 && req.has(d.Inputs.Entity) {
		return out, entities(&out, req.inputs, d.Inputs, rows)
	}
	return out, matrix(&out, req.inputs, d, rows)
}

func (a *api) mayReplay(r *http.Request) error {
	project := door.Project(r.Context())
	res := policy.Resource{Kind: "Project", ID: project, Project: project}
	dec, err := a.Store.Authorize(r.Context(), "time.replay", res)
	if err == nil && !dec.Allow {
		if err = a.Store.Deny(r.Context(), "time.replay", res, dec); err == nil {
			err = store.Denied(r.Context(), "time.replay", res, dec)
		}
	}
	return err
}

func (r *request) has(inputs []serving.Input) bool {
	for _, in := range inputs {
		if !slices.ContainsFunc(r.inputs, func(t tensor) bool { return t.name == in.Name }) {
			return false
		}
	}
	return true
}

// entities spreads the tensors over entity keys and request features.
func entities(out *serving.Request, tensors []tensor, in serving.Inputs, rows int) error {
	out.Entities = make([]map[string]any, rows)
	for i := range rows {
		out.Entities[i] = make(map[string]any, len(in.Entity))
	}
	if len(in.Request) > 0 {
		out.Features = make([]map[string]any, rows)
		for i := range rows {
			out.Features[i] = make(map[string]any, len(in.Request))
		}
	}
	seen := map[string]bool{}
	for i := range tensors {
		t := &tensors[i]
		if seen[t.name] {
			return invalid(t.name, "Input %q stands twice.", t.name)
		}
		seen[t.name] = true
		if t.columns() != 1 {
			return invalid(t.name, "Input %q has the shape %v; asked by entity each input is [rows].", t.name, t.shape)
		}
		named := func(in serving.Input) bool { return in.Name == t.name }
		into := out.Entities
		if !slices.ContainsFunc(in.Entity, named) {
			if !slices.ContainsFunc(in.Request, named) {
				return invalid(t.name, "Input %q is neither an entity key nor a request feature of the model's feature service.", t.name)
			}
			into = out.Features
		}
		for r := range rows {
			into[r][t.name] = t.value(r)
		}
	}
	return nil
}

// matrix takes one tensor [rows, features], or one tensor for each feature.
func matrix(out *serving.Request, tensors []tensor, d serving.Description, rows int) error {
	out.Rows = rows
	var err error
	if t := &tensors[0]; len(tensors) == 1 && t.columns() == len(d.Features) {
		out.Matrix, err = t.numbers()
		return err
	}
	if t := &tensors[0]; len(tensors) == 1 && len(t.shape) == 2 {
		return invalid(t.name, "Input %q has %d columns; the model takes %d features.", t.name, t.columns(), len(d.Features))
	}
	n := len(tensors)
	out.Columns, out.Matrix = make([]string, n), make([]float64, rows*n)
	for c := range tensors {
		t := &tensors[c]
		if t.columns() != 1 {
			return invalid(t.name, "Input %q has the shape %v; with several inputs each is one feature, [rows].", t.name, t.shape)
		}
		values, err := t.numbers()
		if err != nil {
			return err
		}
		out.Columns[c] = t.name
		for r, v := range values {
			out.Matrix[r*n+c] = v
		}
	}
	return nil
}

func checkOutputs(outputs []output) error {
	for i, o := range outputs {
		switch o.name {
		case predict, predictionID, variant, release:
		default:
			return invalid("outputs", "There is no output %q; the model answers %s, %s, %s and %s.", o.name, predict, predictionID, variant, release)
		}
		if slices.ContainsFunc(outputs[:i], func(b output) bool { return b.name == o.name }) {
			return invalid("outputs", "Output %q is asked for twice.", o.name)
		}
	}
	return nil
}

// respond writes the outputs asked for. The JSON is put together by hand: names are escaped, numbers are the shortest text that reads back exactly.
func respond(w http.ResponseWriter, model string, req *request, got serving.Response) error {
	outputs := req.outputs
	if len(outputs) == 0 {
		outputs = []output{{name: predict}}
	}
	first := got.Results[0]
	same, width := true, len(first.Output)
	for _, r := range got.Results {
		same = same && r.Release == first.Release && r.Variant == first.Variant
		if len(r.Output) != width {
			return fault.New(fault.Conflict, "The rows went to releases whose outputs have different widths.", "Ask for one version, or send one row at a time.")
		}
	}
	b := make([]byte, 0, 256+24*len(got.Results)*width)
	b = append(b, `{"model_name":`...)
	b = appendString(b, model)
	b = append(b, `,"id":`...)
	b = appendString(b, got.ID)
	if same {
		b = append(b, `,"model_version":`...)
		b = appendString(b, first.Version)
		b = append(b, `,"parameters":{"variant":`...)
		b = appendString(b, first.Variant)
		b = append(b, `,"release":`...)
		b = appendString(b, first.Release)
		b = append(b, '}')
	}
	b = append(b, `,"outputs":[`...)
	var tail []byte
	for i, o := range outputs {
		if i > 0 {
			b = append(b, ',')
		}
		inBinary := req.binary
		if o.own {
			inBinary = o.binary
		}
		b, tail = appendOutput(b, tail, o.name, inBinary, got.Results, width)
	}
	b = append(b, "]}"...)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if tail != nil {
		h.Set("Content-Type", "application/octet-stream")
		h.Set(binaryHeader, strconv.Itoa(len(b)))
		b = append(b, tail...)
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client is gone when this fails
	return nil
}

func appendOutput(b, tail []byte, name string, inBinary bool, results []serving.Result, width int) ([]byte, []byte) {
	b = append(b, `{"name":`...)
	b = appendString(b, name)
	text := func(r serving.Result) string {
		switch name {
		case predictionID:
			return r.ID
		case variant:
			return r.Variant
		}
		return r.Release
	}
	b = append(b, `,"datatype":`...)
	if name == predict {
		b = append(b, `"FP64","shape":[`...)
		b = strconv.AppendInt(b, int64(len(results)), 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, int64(width), 10)
	} else {
		b = append(b, `"BYTES","shape":[`...)
		b = strconv.AppendInt(b, int64(len(results)), 10)
	}
	b = append(b, ']')
	if inBinary {
		start := len(tail)
		if tail == nil {
			tail = []byte{}
		}
		for _, r := range results {
			if name != predict {
				tail = binary.LittleEndian.AppendUint32(tail, uint32(len(text(r))))
				tail = append(tail, text(r)...)
				continue
			}
			for _, v := range r.Output {
				tail = binary.LittleEndian.AppendUint64(tail, math.Float64bits(v))
			}
		}
		b = append(b, `,"parameters":{"binary_data_size":`...)
		b = strconv.AppendInt(b, int64(len(tail)-start), 10)
		return append(b, "}}"...), tail
	}
	b = append(b, `,"data":[`...)
	comma := false
	for _, r := range results {
		if name != predict {
			if comma {
				b = append(b, ',')
			}
			b, comma = appendString(b, text(r)), true
			continue
		}
		for _, v := range r.Output {
			if comma {
				b = append(b, ',')
			}
			b, comma = strconv.AppendFloat(b, v, 'g', -1, 64), true
		}
	}
	return append(b, "]}"...), tail
}

// appendString writes a JSON string.
func appendString(b []byte, s string) []byte {
	const plain = " !#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c < 128 && bytes.IndexByte([]byte(plain), byte(c)) >= 0 || c >= 160:
			b = append(b, string(c)...)
		default:
			b = append(b, `\u`...)
			for shift := 12; shift >= 0; shift -= 4 {
				b = append(b, "0123456789abcdef"[c>>shift&15])
			}
		}
	}
	return append(b, '"')
}
