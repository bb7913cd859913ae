package serving

import (
	"fmt"
	"slices"
	"strings"

	"falaj/internal/kernel/fault"
)

// bucket maps a unit of an endpoint to 0..99. It depends on nothing else, so a unit keeps its bucket over releases, restarts and machines:
// a canary that grows from 5 to 25 percent keeps the units that it had.
// FNV-1a with a murmur3 finalizer, because FNV alone leaves the high bits of short strings weak.
func bucket(k Key, unit string) int {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{k.Project, k.Model, k.Environment, unit} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h *= 1099511628211 // a zero byte between the parts
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return int((h >> 32) * 100 >> 32)
}

// order sorts variants the way buckets are dealt out: canaries by name, then the champion, then shadows.
func order(variants []Variant) []Variant {
	rank := func(v Variant) int {
		return map[Role]int{Canary: 0, Champion: 1, Shadow: 2}[v.Role]
	}
	out := slices.Clone(variants)
	slices.SortFunc(out, func(a, b Variant) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// check says what is wrong with a set of variants.
func check(variants []Variant) error {
	bad := func(format string, a ...any) error {
		return fault.New(fault.Invalid, fmt.Sprintf(format, a...), "An endpoint has one champion, any canaries whose weights sum to 100 with the champion's, and any shadows with weight 0.").At("variants")
	}
	if len(variants) > 16 {
		return bad("An endpoint has at most 16 variants, not %d.", len(variants))
	}
	names, champions, sum := map[string]bool{}, 0, 0
	for _, v := range variants {
		if v.Name == "" || len(v.Name) > 100 || names[v.Name] {
			return bad("Variant name %q is empty, too long or stands twice.", v.Name)
		}
		names[v.Name] = true
		if v.Release == "" {
			return bad("Variant %q names no release.", v.Name)
		}
		switch v.Role {
		case Champion:
			champions++
		case Canary:
		case Shadow:
			if v.Weight != 0 {
				return bad("Shadow %q has weight %d: a shadow answers nobody.", v.Name, v.Weight)
			}
		default:
			return bad("Variant %q has the role %q; known are champion, canary and shadow.", v.Name, v.Role)
		}
		if v.Weight < 0 || v.Weight > 100 {
			return bad("Variant %q has weight %d, allowed are 0 to 100.", v.Name, v.Weight)
		}
		sum += v.Weight
	}
	if champions != 1 {
		return bad("An endpoint has exactly one champion, not %d.", champions)
	}
	if sum != 100 {
		return bad("The weights sum to %d, not to 100.", sum)
	}
	return nil
}
