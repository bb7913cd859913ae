// Package event is the CloudEvents 1.0 shape of everything falaj announces.
// A change drafts its event inside its transaction; the store gives it id, order and source.
package event

import (
	"encoding/json"
	"time"
)

// Draft is what a change announces: Type such as "dataset.version.created", Subject such as "flights/3".
// At is event time; zero means now. An empty Type announces nothing.
type Draft struct {
	Type    string
	Subject string
	Data    any
	At      time.Time
}

// Event is a recorded event. Seq orders all events of the installation. Source is "/falaj" or "/falaj/p/PROJECT".
type Event struct {
	Seq     int64
	ID      string
	Source  string
	Type    string
	Subject string
	Project string
	Time    time.Time
	Data    json.RawMessage
}

type envelope struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Subject     string          `json:"subject,omitempty"`
	Time        string          `json:"time"`
	ContentType string          `json:"datacontenttype"`
	Seq         int64           `json:"falajseq"`
	Data        json.RawMessage `json:"data,omitempty"`
}

// MarshalJSON gives the structured JSON form of CloudEvents 1.0; the extension falajseq carries the order.
func (e Event) MarshalJSON() ([]byte, error) {
	return json.Marshal(envelope{"1.0", e.ID, e.Source, e.Type, e.Subject, e.Time.UTC().Format(time.RFC3339Nano), "application/json", e.Seq, e.Data})
}
