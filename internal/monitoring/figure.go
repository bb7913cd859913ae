package monitoring

import (
	"encoding/json"
	"math"
)

// Figure is one measured number, or the reason why there is none. The zero Figure is the number 0.
// Its JSON is {"value": 0.71} or {"value": null, "undefined": "one class only"}: never NaN or infinity.
type Figure struct {
	Value     float64 // meaningless when Undefined is set
	Undefined string  // why there is no number; empty when there is one
}

// Number makes a Figure of v. NaN and infinities become an undefined Figure.
func Number(v float64) Figure {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return Figure{Undefined: "not a finite number"}
	}
	return Figure{Value: v}
}

// Undefined makes a Figure without a number.
func Undefined(why string) Figure { return Figure{Undefined: why} }

// Defined says whether the Figure holds a number.
func (f Figure) Defined() bool { return f.Undefined == "" }

type figureJSON struct {
	Value     *float64 `json:"value"`
	Undefined string   `json:"undefined,omitempty"`
}

// MarshalJSON writes the two forms of the type's comment.
func (f Figure) MarshalJSON() ([]byte, error) {
	if f.Undefined == "" && (math.IsNaN(f.Value) || math.IsInf(f.Value, 0)) {
		f = Number(f.Value)
	}
	if f.Undefined != "" {
		return json.Marshal(figureJSON{Undefined: f.Undefined})
	}
	return json.Marshal(figureJSON{Value: &f.Value})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (f *Figure) UnmarshalJSON(b []byte) error {
	var j figureJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*f = Figure{Undefined: j.Undefined}
	if j.Value != nil {
		f.Value = *j.Value
	} else if f.Undefined == "" {
		f.Undefined = "not recorded"
	}
	return nil
}

// The reasons that the measures of this package give.
const (
	whyEmpty    = "no labelled rows"
	whyOneClass = "all labels are of one class"
)
