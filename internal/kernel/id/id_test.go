package id

import "testing"

func TestTheSamePartsAreTheSameId(t *testing.T) {
	t.Parallel()
	a := Of("prd", "one", "two")
	if a != Of("prd", "one", "two") || a == Of("prd", "onet", "wo") || a == Of("prd", "one", "two", "") || len(a) != len(New("prd")) {
		t.Error(a)
	}
	if _, err := Hex(a); err != nil {
		t.Error(err)
	}
}

func TestTwoSpellingsAreOneId(t *testing.T) {
	t.Parallel()
	a, b := New("run"), New("run")
	if !(a < b) {
		t.Fatalf("%s must sort before %s", a, b)
	}
	h, err := Hex(a)
	if err != nil || len(h) != 32 {
		t.Fatal(h, err)
	}
	back, err := FromHex("run", h)
	if err != nil || back != a {
		t.Fatalf("%s != %s (%v)", back, a, err)
	}
	for _, bad := range []string{"", "run", "run_", "run_zz", "run_" + "u0000000000000000000000000"} {
		if _, err := Hex(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}
