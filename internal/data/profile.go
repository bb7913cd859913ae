package data

// GridSize is the number of equal steps of the quantile grid of a profile: 51 values at 0, 1/50 ... 1.
const GridSize = 50

// TopSize is how many of the most frequent values a profile keeps for a text or boolean column.
const TopSize = 50

// Profile describes the content of a dataset version, column by column, in its column order.
type Profile struct {
	Rows    int64           `json:"rows"`
	Columns []ColumnProfile `json:"columns"`
}

// Kinds of columns, by how they are described.
const (
	KindNumber = "number" // min, max, mean, sd, grid, edges and counts
	KindTime   = "time"   // the same in microseconds UTC since 1970 (a DATE at its midnight)
	KindText   = "text"   // top values
	KindBool   = "bool"   // top values "true" and "false"
	KindOther  = "other"  // nulls and distinct only
)

// ColumnProfile describes one column. Nulls and NaNs are counted apart and stand in no other figure; infinities count
// as NaNs. Distinct is approximate (HyperLogLog, a few per cent). SD is the sample's.
//
// Edges are the cut points, strictly rising; Counts has one entry more: rows <= Edges[0], then rows in
// (Edges[i-1], Edges[i]], at last rows above the last edge. Top holds the most frequent values, by falling count then
// by value; Other counts the rows of all other values.
//
// Masked is the mask under which a column is kept in a version: Top holds pseudonyms, or nothing when it is redacted, and
// Min to Counts are absent. Pseudonyms of one project and column name compare between versions.
type ColumnProfile struct {
	Name     string    `json:"name"`
	Type     string    `json:"type"`
	Kind     string    `json:"kind"`
	Nulls    int64     `json:"nulls"`
	NaNs     int64     `json:"nans,omitempty"`
	Distinct int64     `json:"distinct"`
	Min      *float64  `json:"min,omitempty"`
	Max      *float64  `json:"max,omitempty"`
	Mean     *float64  `json:"mean,omitempty"`
	SD       *float64  `json:"sd,omitempty"`
	Grid     []float64 `json:"grid,omitempty"`
	Edges    []float64 `json:"edges,omitempty"`
	Counts   []int64   `json:"counts,omitempty"`
	Top      []Top     `json:"top,omitempty"`
	Other    int64     `json:"other,omitempty"`
	Masked   string    `json:"masked,omitempty"`
}

// Top is one frequent value and its rows.
type Top struct {
	Value string `json:"value"`
	Rows  int64  `json:"rows"`
}

// Column finds a column by name; nil when there is none.
func (p *Profile) Column(name string) *ColumnProfile {
	if p == nil {
		return nil
	}
	for i := range p.Columns {
		if p.Columns[i].Name == name {
			return &p.Columns[i]
		}
	}
	return nil
}
