// Package lineage keeps the graph of what came from what, from a source file to the deployment that answers with it.
// It answers which models a change of data touches and why a model is as it is, and draws the graph the same way for pages, terminals and passports.
package lineage

import "time"

// Kind of a node; the order of Kinds is the order of the water.
type Kind string

// The kinds.
const (
	Source      Kind = "source"       // a file as it was read, by its digest
	Dataset     Kind = "dataset"      // a dataset version
	View        Kind = "view"         // a feature view as defined for a training set
	TrainingSet Kind = "training_set" // the joined rows a run learned from
	Run         Kind = "run"
	Release     Kind = "release"
	Change      Kind = "change"
	Deployment  Kind = "deployment"
)

// Kinds lists the kinds from the source to the field: a node never stands left of one of an earlier kind.
func Kinds() []Kind {
	return []Kind{Source, Dataset, View, TrainingSet, Run, Release, Change, Deployment}
}

func (k Kind) rank() int {
	for i, o := range Kinds() {
		if o == k {
			return i
		}
	}
	return -1
}

// Node is one thing in a project. ID is the thing's own id, e.g. "dsv_...", and unique in the project. Label is what
// people call it, e.g. "flights@3". At is when it came to be (event time).
type Node struct {
	ID    string
	Kind  Kind
	Label string
	At    time.Time
}

// Edge says that To was made from From; Role is how, e.g. "read", "joined", "trained", "packaged", "served".
type Edge struct {
	From string
	To   string
	Role string
}

// Graph is a part of a project's lineage. Every edge's ends are among the nodes, which are ordered by time and id.
// Truncated says that more was there than is shown.
type Graph struct {
	Project   string
	Focus     string // the node the graph was asked around, or ""
	Nodes     []Node
	Edges     []Edge
	Truncated bool
}

// Reached is a node on a walk, Distance edges away from its start.
type Reached struct {
	Node
	Distance int
}
