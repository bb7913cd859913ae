package oip

import (
	"errors"

	"falaj/internal/kernel/fault"
)

// request is an inference request as it came.
type request struct {
	id      string
	inputs  []tensor
	outputs []output
	at      []int64  // microseconds UTC
	units   []string //
	binary  bool     // binary_data_output: answer all outputs in the binary part
}

type output struct {
	name   string
	binary bool
	own    bool // the output says itself whether it is binary
}

// parse reads the JSON part of a request; the tensors that are in the binary part stay empty.
func parse(body []byte) (*request, error) {
	s := &scanner{b: body}
	r := &request{}
	err := s.object(func(key []byte) error {
		switch string(key) {
		case "id":
			v, err := s.string()
			r.id = string(v)
			return err
		case "parameters":
			return r.parameters(s)
		case "inputs":
			return s.array(func() error { return r.input(s) })
		case "outputs":
			return s.array(func() error { return r.output(s) })
		}
		return s.skip(0)
	})
	if err == nil {
		err = s.end()
	}
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		err = fault.Wrap(err, fault.Invalid, "The body is not an inference request: "+syntax.Error()+".", "Send JSON as the Open Inference Protocol V2 describes it.")
	}
	if err != nil {
		return nil, err
	}
	if len(r.id) > 200 {
		return nil, invalid("id", "The id has %d bytes, allowed are 200.", len(r.id))
	}
	if len(r.inputs) == 0 {
		return nil, invalid("inputs", "The request has no inputs.")
	}
	return r, nil
}

// parameters of a request: at (microseconds, one or a list), unit (text, one or a list), binary_data_output. Others are not ours.
func (r *request) parameters(s *scanner) error {
	return s.object(func(key []byte) error {
		var err error
		switch string(key) {
		case "at":
			return oneOrMore(s, func() error {
				v, err := s.integer()
				r.at = append(r.at, v)
				return err
			})
		case "unit":
			return oneOrMore(s, func() error {
				v, err := s.string()
				r.units = append(r.units, string(v))
				return err
			})
		case "binary_data_output":
			r.binary, err = s.bool()
			return err
		}
		return s.skip(0)
	})
}

func oneOrMore(s *scanner, f func() error) error {
	if s.peek() == '[' {
		return s.array(f)
	}
	return f()
}

func (r *request) output(s *scanner) error {
	o := output{}
	err := s.object(func(key []byte) error {
		switch string(key) {
		case "name":
			v, err := s.string()
			o.name = string(v)
			return err
		case "parameters":
			return s.object(func(key []byte) (err error) {
				switch string(key) {
				case "binary_data":
					o.own = true
					o.binary, err = s.bool()
					return err
				case "classification", "shared_memory_region":
					return fault.New(fault.Unsupported, "The output parameter "+string(key)+" is not served.", "Leave it out.").At("outputs")
				}
				return s.skip(0)
			})
		}
		return s.skip(0)
	})
	r.outputs = append(r.outputs, o)
	return err
}

// input reads one tensor. Its data may stand before its datatype: then it is read again at the end.
func (r *request) input(s *scanner) error {
	t := tensor{binary: -1}
	data := -1
	err := s.object(func(key []byte) error {
		switch string(key) {
		case "name":
			v, err := s.string()
			t.name = string(v)
			return err
		case "datatype":
			v, err := s.string()
			t.datatype = string(v)
			return err
		case "shape":
			t.shape = t.shape[:0]
			return s.array(func() error {
				v, err := s.integer()
				if t.shape = append(t.shape, v); len(t.shape) > 8 {
					return s.bad("a shape has more than 8 dimensions")
				}
				return err
			})
		case "parameters":
			return s.object(func(key []byte) error {
				switch string(key) {
				case "binary_data_size":
					v, err := s.integer()
					if err == nil && (v < 0 || v > maxBody) {
						err = s.bad("binary_data_size is out of range")
					}
					t.binary = int(v)
					return err
				case "shared_memory_region":
					return fault.New(fault.Unsupported, "Shared memory is not served.", "Send the data with the request.").At("inputs")
				}
				return s.skip(0)
			})
		case "data":
			s.space()
			data = s.at
			if t.datatype == "" || t.shape == nil {
				return s.skip(0)
			}
			return t.read(s)
		}
		return s.skip(0)
	})
	if err != nil {
		return err
	}
	n, err := t.check()
	if err != nil {
		return err
	}
	if data >= 0 && !t.filled {
		again := &scanner{b: s.b, at: data}
		if err := t.read(again); err != nil {
			return err
		}
	}
	switch {
	case t.filled && t.binary >= 0:
		return invalid(t.name, "Input %q has both data and binary_data_size.", t.name)
	case !t.filled && t.binary < 0:
		return invalid(t.name, "Input %q has no data.", t.name)
	case t.filled && t.count() != n:
		return invalid(t.name, "Input %q has %d values; its shape %v needs %d.", t.name, t.count(), t.shape, n)
	}
	r.inputs = append(r.inputs, t)
	return nil
}

// read reads the data of a tensor, flat or nested.
func (t *tensor) read(s *scanner) error {
	n, err := t.check()
	if err != nil {
		return err
	}
	if t.filled {
		return s.bad("data stands twice")
	}
	t.filled = true
	k, _ := kind(t.datatype)
	n = min(n, len(s.b)-s.at) // no more values than bytes, whatever the shape says
	switch k {
	case 'f':
		t.floats = make([]float64, 0, n)
	case 'i':
		t.ints = make([]int64, 0, n)
	case 'b':
		t.bools = make([]bool, 0, n)
	default:
		t.strings = make([]string, 0, n/2)
	}
	return t.values(s, k, 0)
}

func (t *tensor) values(s *scanner, k byte, depth int) error {
	if depth > 2 {
		return s.bad("data is nested deeper than its shape")
	}
	return s.array(func() error {
		if s.peek() == '[' {
			return t.values(s, k, depth+1)
		}
		switch k {
		case 'f':
			v, err := s.number()
			t.floats = append(t.floats, v)
			return err
		case 'i':
			v, err := s.integer()
			t.ints = append(t.ints, v)
			return err
		case 'b':
			v, err := s.bool()
			t.bools = append(t.bools, v)
			return err
		}
		v, err := s.string()
		t.strings = append(t.strings, string(v))
		return err
	})
}

// take fills the tensors of the binary part, which follow each other in the order of the inputs.
func (r *request) take(b []byte) error {
	for i := range r.inputs {
		t := &r.inputs[i]
		if t.binary < 0 {
			continue
		}
		if t.binary > len(b) {
			return invalid(t.name, "The body ends before the binary data of input %q.", t.name)
		}
		if err := t.decode(b[:t.binary]); err != nil {
			return err
		}
		n, _ := t.check()
		if t.count() != n {
			return invalid(t.name, "Input %q has %d values; its shape %v needs %d.", t.name, t.count(), t.shape, n)
		}
		b = b[t.binary:]
	}
	if len(b) > 0 {
		return invalid("inputs", "%d bytes follow the inputs.", len(b))
	}
	return nil
}
