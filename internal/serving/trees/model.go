// Package trees evaluates LightGBM models in pure Go, so that a tree model is served inside the process without a native library.
// It is exact or it refuses: what the text file holds and this package does not know is an ErrUnsupported that names the key.
package trees

import (
	"math"
	"slices"
)

// zeroThreshold is LightGBM's kZeroThreshold, a float32 constant widened to float64: |x| at or below it counts as zero.
const zeroThreshold = float64(float32(1e-35))

// Model is one parsed LightGBM model. It is immutable after Parse, so any number of goroutines may predict with it.
type Model struct {
	names      []string
	objective  string
	finish     func(raw []float64) // the objective's transform, in place; nil is the identity
	outputs    int                 // trees per iteration, one output for each
	average    bool                // random forest: the mean over the iterations, not the sum
	iterations int
	trees      []tree
	nodes      []node
	leaves     []float64
	gain       []float64
	split      []float64
}

// tree is where one tree starts. A root below zero is the only leaf of the tree, written as in node.
type tree struct {
	root int32
}

// node is one numeric split. left and right are indices into Model.nodes when >= 0, else ^index into Model.leaves.
type node struct {
	threshold float64
	left      int32
	right     int32
	feature   int32
	// zeroMissing marks missing type Zero: |x| <= zeroThreshold takes the missing branch.
	zeroMissing bool
	// missingLeft is where NaN goes (for missing type None that is where 0 goes, as LightGBM reads NaN as 0 there).
	missingLeft bool
}

// NumFeatures is the length that Predict wants of a row.
func (m *Model) NumFeatures() int { return len(m.names) }

// NumOutputs is the number of values that Predict writes for a row: 1, or the number of classes.
func (m *Model) NumOutputs() int { return m.outputs }

// NumTrees is the number of trees over all iterations and classes.
func (m *Model) NumTrees() int { return len(m.trees) }

// Objective is the objective line of the file ("binary sigmoid:1"), empty for a model trained with a custom objective, whose output is raw.
func (m *Model) Objective() string { return m.objective }

// FeatureNames are the columns in the order of a row. The slice is the caller's.
func (m *Model) FeatureNames() []string { return slices.Clone(m.names) }

// Importance is LightGBM's feature importance, one value for each feature.
type Importance struct {
	Gain  []float64 // summed gain of the splits on the feature
	Split []float64 // number of splits with a positive gain on the feature
}

// Importance sums the splits of all trees, as Booster.feature_importance does.
func (m *Model) Importance() Importance {
	return Importance{Gain: slices.Clone(m.gain), Split: slices.Clone(m.split)}
}

// Predict scores one row: x has NumFeatures values (NaN is missing), out takes NumOutputs values.
// It allocates nothing and panics when a slice is shorter than that, like an index out of range.
func (m *Model) Predict(x, out []float64) {
	x, out = x[:len(m.names)], out[:m.outputs]
	clear(out)
	if m.outputs == 1 {
		sum := 0.0
		for i := range m.trees {
			sum += m.leaf(m.trees[i].root, x)
		}
		out[0] = sum
	} else {
		k := 0
		for i := range m.trees {
			out[k] += m.leaf(m.trees[i].root, x)
			if k++; k == m.outputs {
				k = 0
			}
		}
	}
	m.convert(out)
}

// batchBlock rows are taken through one tree before the next one, so that a tree stays in the cache.
const batchBlock = 64

// PredictBatch scores rows of a row-major matrix: x has rows*NumFeatures values, out takes rows*NumOutputs.
// Every row gets the very bits that Predict would give it; it allocates nothing.
func (m *Model) PredictBatch(x []float64, rows int, out []float64) {
	w, k := len(m.names), m.outputs
	x, out = x[:rows*w], out[:rows*k]
	clear(out)
	for start := 0; start < rows; start += batchBlock {
		end := min(start+batchBlock, rows)
		class := 0
		for i := range m.trees {
			root := m.trees[i].root
			for r := start; r < end; r++ {
				out[r*k+class] += m.leaf(root, x[r*w:r*w+w])
			}
			if class++; class == k {
				class = 0
			}
		}
	}
	for r := range rows {
		m.convert(out[r*k : r*k+k])
	}
}

func (m *Model) convert(out []float64) {
	if m.average {
		for i := range out {
			out[i] /= float64(m.iterations)
		}
	}
	if m.finish != nil {
		m.finish(out)
	}
}

// leaf walks one tree. Parse has proved that every index is in range and that the walk ends.
func (m *Model) leaf(at int32, x []float64) float64 {
	for at >= 0 {
		n := &m.nodes[at]
		v := x[n.feature]
		left := v <= n.threshold
		if v != v || (n.zeroMissing && math.Abs(v) <= zeroThreshold) {
			left = n.missingLeft
		}
		if left {
			at = n.left
		} else {
			at = n.right
		}
	}
	return m.leaves[^at]
}
