package trees

import "math"

// decision_type bits of LightGBM: 1 categorical, 2 default left, then two bits of missing type.
const (
	categoricalBit = 1
	defaultLeftBit = 2
	missingNone    = 0
	missingZero    = 1
	missingNaN     = 2
)

// tree checks one block against itself and appends its nodes and leaves to the model.
func (p *parser) tree(b block) error {
	m := p.model
	start := p.line
	for _, k := range b.keys {
		v := b.value[k]
		switch k {
		case "num_leaves", "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child", "leaf_value",
			"leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count", "shrinkage": // the last six change no prediction
		case "num_cat":
			if p.line = b.line[k]; v != "0" {
				return p.unsupported(k, "categorical splits")
			}
		case "is_linear":
			if p.line = b.line[k]; v != "0" {
				return p.unsupported(k, "linear trees")
			}
		default:
			p.line = b.line[k]
			return p.unsupported(clip(k), "unknown key in a tree")
		}
	}
	p.line = start
	leaves, err := p.int(b, "num_leaves", 1, maxLeaves)
	if err != nil {
		return err
	}
	if _, err := p.int(b, "num_cat", 0, 0); err != nil {
		return err
	}
	values, err := p.floats(b, "leaf_value", leaves, 64)
	if err != nil {
		return err
	}
	for _, v := range values {
		if math.IsInf(v, 0) {
			return p.bad("leaf_value is infinite")
		}
	}
	if len(m.leaves) > math.MaxInt32-leaves {
		return p.bad("more than %d leaves", math.MaxInt32)
	}
	leafBase, nodeBase := int32(len(m.leaves)), int32(len(m.nodes))
	m.leaves = append(m.leaves, values...)
	if leaves == 1 {
		m.trees = append(m.trees, tree{root: ^leafBase})
		return nil
	}
	m.trees = append(m.trees, tree{root: nodeBase})

	inner := leaves - 1
	threshold, err := p.floats(b, "threshold", inner, 64)
	if err != nil {
		return err
	}
	gain, err := p.floats(b, "split_gain", inner, 32)
	if err != nil {
		return err
	}
	feature, err := p.ints(b, "split_feature", inner, 0, len(m.names)-1)
	if err != nil {
		return err
	}
	decision, err := p.ints(b, "decision_type", inner, -128, 127)
	if err != nil {
		return err
	}
	left, err := p.ints(b, "left_child", inner, -leaves, inner-1)
	if err != nil {
		return err
	}
	right, err := p.ints(b, "right_child", inner, -leaves, inner-1)
	if err != nil {
		return err
	}
	p.line = b.line["left_child"]
	if why := oneTree(left, right, leaves); why != "" {
		return p.bad("%s", why)
	}
	p.line = b.line["decision_type"]
	for i := range inner {
		n := node{threshold: flush(threshold[i]), feature: feature[i], left: shift(left[i], nodeBase, leafBase), right: shift(right[i], nodeBase, leafBase)}
		d := int(uint8(int8(decision[i])))
		if d&categoricalBit != 0 {
			return p.unsupported("decision_type", "categorical splits")
		}
		if d>>4 != 0 {
			return p.unsupported("decision_type", "%d has unknown bits", decision[i])
		}
		switch d >> 2 & 3 {
		case missingNone:
			n.missingLeft = 0 <= n.threshold
		case missingZero:
			n.missingLeft, n.zeroMissing = d&defaultLeftBit != 0, true
		case missingNaN:
			n.missingLeft = d&defaultLeftBit != 0
		default:
			return p.unsupported("decision_type", "%d has an unknown missing type", decision[i])
		}
		m.nodes = append(m.nodes, n)
		if gain[i] > 0 {
			m.gain[feature[i]] += gain[i]
			m.split[feature[i]]++
		}
	}
	return nil
}

// flush moves a threshold so that the walk need not round |x| <= zeroThreshold to 0 first, as LightGBM does on its dense rows.
// Such an x goes left exactly when 0 <= threshold, and every other x keeps its side.
func flush(threshold float64) float64 {
	switch {
	case threshold >= 0 && threshold < zeroThreshold:
		return zeroThreshold
	case threshold < 0 && threshold >= -zeroThreshold:
		return math.Nextafter(-zeroThreshold, math.Inf(-1))
	}
	return threshold
}

// shift moves a child index of one tree to the model's slices. LightGBM writes leaf i as ^i.
func shift(child, nodeBase, leafBase int32) int32 {
	if child >= 0 {
		return child + nodeBase
	}
	return ^(^child + leafBase)
}

// oneTree walks from the root: every inner node and every leaf must be met exactly once. That refuses cycles, shared children and orphans.
func oneTree(left, right []int32, leaves int) string {
	node, leaf := make([]bool, len(left)), make([]bool, leaves)
	stack, met := []int32{0}, 0
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		seen := leaf
		i := at
		if at >= 0 {
			seen = node
		} else {
			i = ^at
		}
		if seen[i] {
			return "a child is referenced twice: not a tree"
		}
		seen[i] = true
		met++
		if at >= 0 {
			stack = append(stack, left[at], right[at])
		}
	}
	if met != len(left)+leaves {
		return "some nodes cannot be reached from the root"
	}
	return ""
}
