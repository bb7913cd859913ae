package cli

import "testing"

// What `falaj logs --follow` prints between two looks at a log of which only the tail is kept.
func TestUnsaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ said, tail, want string }{
		{"", "a\nb\n", "a\nb\n"},
		{"a\n", "a\nb\n", "b\n"},
		{"a\nb\n", "a\nb\n", ""},
		{"a\nb\nc\n", "c\nd\n", "d\n"},    // the beginning was cut
		{"a\nb\n", "x\ny\n", "x\ny\n"},    // more came than the tail holds
		{"a\nhal", "a\nhalf\n", "f\n"},    // a line was not whole
		{"a\nb\nhal", "b\nhalf\n", "f\n"}, // and the beginning was cut
	} {
		if got := unsaid(c.said, c.tail); got != c.want {
			t.Errorf("after %q the tail %q gave %q, not %q", c.said, c.tail, got, c.want)
		}
	}
}
