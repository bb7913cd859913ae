package fault

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestEveryKindHasCodesAndANextStep(t *testing.T) {
	t.Parallel()
	for _, k := range Kinds() {
		e := New(k, "x", "")
		if e.Next == "" {
			t.Errorf("%s: no next step", k)
		}
		if k.HTTP() < 400 || k.Exit() == 0 || k.MLflow() == "" {
			t.Errorf("%s: http %d exit %d mlflow %q", k, k.HTTP(), k.Exit(), k.MLflow())
		}
		if k != Internal && k.HTTP() == 500 {
			t.Errorf("%s falls through to the internal row", k)
		}
	}
}

func TestUnknownErrorsAreWithheld(t *testing.T) {
	t.Parallel()
	e := From(errors.New("password=hunter2"))
	if e.Kind != Internal || strings.Contains(e.Public, "hunter2") {
		t.Fatalf("leaked: %+v", e)
	}
	wrapped := fmt.Errorf("op: %w", New(NotFound, "no model", ""))
	if KindOf(wrapped) != NotFound {
		t.Fatal("a wrapped fault must keep its kind")
	}
	if Wrap(nil, Invalid, "x", "") != nil {
		t.Fatal("wrapping nil must give nil")
	}
}
