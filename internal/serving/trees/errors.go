package trees

import (
	"errors"
	"fmt"
)

// ErrUnsupported matches (errors.Is) every refusal of a model that is well formed as far as it was read, but holds something this engine does not evaluate.
// Such a model is for another runtime; it is never guessed.
var ErrUnsupported = errors.New("not supported by the pure-Go tree engine")

// ErrMalformed matches every refusal of a file that contradicts itself, is cut off, or is beyond the limits.
var ErrMalformed = errors.New("malformed LightGBM model")

// UnsupportedError names what is not supported.
type UnsupportedError struct {
	Key  string // the key of the file: "num_cat", "objective", "is_linear" ...
	Line int    // 1-based; 0 when it is not about one line
	Why  string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("lightgbm model, line %d: %s: %s (%s)", e.Line, e.Key, e.Why, ErrUnsupported)
}

// Is makes errors.Is(err, ErrUnsupported) true.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// MalformedError says where a file is broken.
type MalformedError struct {
	Line int // 1-based
	Why  string
}

func (e *MalformedError) Error() string {
	return fmt.Sprintf("%s, line %d: %s", ErrMalformed, e.Line, e.Why)
}

// Is makes errors.Is(err, ErrMalformed) true.
func (e *MalformedError) Is(target error) bool { return target == ErrMalformed }
