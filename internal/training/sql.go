package training

import (
	"context"
	"encoding/json"
	"fmt"

	"falaj/internal/kernel/fault"
	"falaj/internal/store"
)

const columns = `id, project, run, work_key, argv, code, commit_id, dirty, runtime, params, data, limits, started, ended, outcome, exit_code, reason, log, artifacts, memory_peak, cpu_seconds, guards`

// text is the JSON of a part of the record.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("training: strings and numbers always encode: " + err.Error())
	}
	return string(b)
}

func insert(ctx context.Context, tx *store.Tx, t Training) error {
	_, err := tx.Exec(ctx, `INSERT INTO trainings (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`,
		t.ID, t.Project, t.Run, t.Key, text(t.Argv), t.Code, t.Commit, t.Dirty, t.Runtime, text(t.Params), text(t.Data), text(t.Limits), store.Micros(t.Started), store.Micros(t.Ended),
		string(t.Outcome), t.ExitCode, t.Reason, t.Log, text(t.Artifacts), t.MemoryPeak, t.CPUSeconds, text(t.Guards))
	return err
}

// update closes a record once; a second end of the same training is a bug or a race, and is refused.
func update(ctx context.Context, tx *store.Tx, t Training) error {
	n, err := tx.Exec(ctx, `UPDATE trainings SET ended = $1, outcome = $2, exit_code = $3, reason = $4, log = $5, artifacts = $6, memory_peak = $7, cpu_seconds = $8, guards = $9
		WHERE id = $10 AND project = $11 AND outcome = $12`,
		store.Micros(t.Ended), string(t.Outcome), t.ExitCode, t.Reason, t.Log, text(t.Artifacts), t.MemoryPeak, t.CPUSeconds, text(t.Guards), t.ID, t.Project, string(Running))
	if err == nil && n != 1 {
		err = fault.New(fault.Conflict, fmt.Sprintf("Training %s has already ended.", t.ID), "")
	}
	return err
}

func (s *Service) list(ctx context.Context, where string, args ...any) (out []Training, err error) {
	err = s.db.View(ctx, func(ctx context.Context, q store.Querier) error {
		rows, err := q.Query(ctx, `SELECT `+columns+` FROM trainings WHERE `+where+` ORDER BY started DESC, id DESC LIMIT 1000`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			t, err := scan(rows)
			if err != nil {
				return err
			}
			out = append(out, t)
		}
		return rows.Err()
	})
	return out, err
}

func scan(from interface{ Scan(...any) error }) (t Training, err error) {
	var started, ended int64
	var outcome string
	var parts [6]string
	into := [6]any{&t.Argv, &t.Params, &t.Data, &t.Limits, &t.Artifacts, &t.Guards}
	err = from.Scan(&t.ID, &t.Project, &t.Run, &t.Key, &parts[0], &t.Code, &t.Commit, &t.Dirty, &t.Runtime, &parts[1], &parts[2], &parts[3], &started, &ended,
		&outcome, &t.ExitCode, &t.Reason, &t.Log, &parts[4], &t.MemoryPeak, &t.CPUSeconds, &parts[5])
	for i := 0; err == nil && i < len(parts); i++ {
		err = json.Unmarshal([]byte(parts[i]), into[i])
	}
	t.Outcome, t.Started, t.Ended = Outcome(outcome), store.Time(started), store.Time(ended)
	return t, err
}
