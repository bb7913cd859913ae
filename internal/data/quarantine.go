package data

import (
	"context"
	"encoding/json"

	"falaj/internal/kernel/fault"
	"falaj/internal/kernel/seal"
	"falaj/internal/store"
)

// Rows that break a contract are kept as a Parquet blob of their own and not on a branch of the dataset's table: what
// breaks a type, or comes from a file with other columns, has no place in the table's schema, and rows put aside must
// be erasable without touching snapshots that versions name.

// Quarantines lists what was put aside, newest first; dataset "" is all of the project.
func (s *Service) Quarantines(ctx context.Context, project, dataset string, limit int) (out []Aside, err error) {
	if limit <= 0 || limit > 1000 {
		limit = 100
	}
	err = s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) error {
		out, err = listAsides(ctx, q, box, project, dataset, limit)
		return err
	})
	return out, err
}

// Quarantine gives one by id, for example "qua_...".
func (s *Service) Quarantine(ctx context.Context, project, asideID string) (Aside, error) {
	var a *Aside
	err := s.view(ctx, project, func(ctx context.Context, q store.Querier, box *seal.Box) (err error) {
		a, err = asideByID(ctx, q, box, project, asideID)
		return err
	})
	if err != nil {
		return Aside{}, err
	}
	if a == nil {
		return Aside{}, fault.New(fault.NotFound, "There is no quarantine "+quote(asideID)+" in this project.", "The dataset's page lists them.")
	}
	return *a, nil
}

// QuarantineRows shows the first rows that were put aside with the reasons, masked. A file that could not be read at
// all has none.
func (s *Service) QuarantineRows(ctx context.Context, project, asideID string, limit int) ([]AsideRow, error) {
	a, err := s.Quarantine(ctx, project, asideID)
	if err != nil || a.RowsDigest == "" {
		return nil, err
	}
	d, err := s.Dataset(ctx, project, a.Dataset)
	if err != nil {
		return nil, err
	}
	room, err := s.engine.Room(1 << 20)
	if err != nil {
		return nil, err
	}
	defer room.Close()
	path, err := s.layOut(ctx, project, a.RowsDigest, room, "aside.parquet")
	if err != nil {
		return nil, err
	}
	rows, err := s.engine.Query(ctx, QueryJob{Dir: room.Dir, SQL: "SELECT coalesce(row, 0) AS row, reasons, record FROM aside", Inputs: map[string]Input{"aside": {Files: []string{path}}}, Limit: limit})
	if err != nil {
		return nil, err
	}
	masks := d.Spec.masks()
	for column, mask := range a.Masks { // a source column behind a masked one, or a mask that is gone from the definition
		if masks[column] == "" {
			masks[column] = mask
		}
	}
	out := make([]AsideRow, len(rows.Rows))
	for i, raw := range rows.Rows {
		var row struct {
			Row     int64
			Reasons []string
			Record  string
		}
		if err := json.Unmarshal(raw, &row); err != nil {
			return nil, err
		}
		record, err := s.maskObject(project, masks, json.RawMessage(row.Record))
		if err != nil {
			return nil, fault.Wrap(err, fault.Internal, "A row could not be masked, so it is not shown.", "Report this error.")
		}
		out[i] = AsideRow{Row: row.Row, Reasons: hideValues(row.Reasons, masks), Record: record}
	}
	return out, nil
}
