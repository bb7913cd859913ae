package lineage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"falaj/internal/store"
)

type direction int

const (
	upstream direction = iota
	downstream
)

// chunk keeps lists of placeholders below what the databases take, and their prepared texts few.
const chunk = 200

// in writes "$first, $first+1, ..." for n values.
func in(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", first+i)
	}
	return b.String()
}

func args(project string, ids []string) []any {
	out := make([]any, 0, len(ids)+1)
	out = append(out, project)
	for _, id := range ids {
		out = append(out, id)
	}
	return out
}

func loadNodes(ctx context.Context, q store.Querier, project string, ids []string) (map[string]Node, error) {
	out := make(map[string]Node, len(ids))
	for part := range slices.Chunk(ids, chunk) {
		if err := queryNodes(ctx, q, out, `SELECT id, kind, label, at FROM lineage_nodes WHERE project = $1 AND id IN (`+in(2, len(part))+`)`, args(project, part)...); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func newest(ctx context.Context, q store.Querier, project string, n int) (map[string]Node, error) {
	out := make(map[string]Node)
	return out, queryNodes(ctx, q, out, `SELECT id, kind, label, at FROM lineage_nodes WHERE project = $1 ORDER BY at DESC, id DESC LIMIT $2`, project, n)
}

func queryNodes(ctx context.Context, q store.Querier, out map[string]Node, text string, args ...any) error {
	rows, err := q.Query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n Node
		var at int64
		if err := rows.Scan(&n.ID, &n.Kind, &n.Label, &at); err != nil {
			return err
		}
		n.At = store.Time(at)
		out[n.ID] = n
	}
	return rows.Err()
}

// neighbours returns the other ends of the edges of ids, each once, in a stable order.
func neighbours(ctx context.Context, q store.Querier, project string, ids []string, dir direction) ([]string, error) {
	want, have := "to_id", "from_id"
	if dir == upstream {
		want, have = have, want
	}
	var out []string
	for part := range slices.Chunk(ids, chunk) {
		rows, err := q.Query(ctx, `SELECT DISTINCT `+want+` FROM lineage_edges WHERE project = $1 AND `+have+` IN (`+in(2, len(part))+`) ORDER BY `+want, args(project, part)...)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				rows.Close()
				return nil, err
			}
			out = append(out, id)
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// edgesAmong returns the edges between the given nodes.
func edgesAmong(ctx context.Context, q store.Querier, project string, nodes map[string]Node) ([]Edge, error) {
	ids := make([]string, 0, len(nodes))
	for id := range nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var out []Edge
	for part := range slices.Chunk(ids, chunk) {
		rows, err := q.Query(ctx, `SELECT from_id, to_id, role FROM lineage_edges WHERE project = $1 AND from_id IN (`+in(2, len(part))+`) ORDER BY from_id, to_id, role`, args(project, part)...)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var e Edge
			if err := rows.Scan(&e.From, &e.To, &e.Role); err != nil {
				rows.Close()
				return nil, err
			}
			if _, ok := nodes[e.To]; ok {
				out = append(out, e)
			}
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func insertNodes(ctx context.Context, tx *store.Tx, project string, nodes []Node) error {
	for _, n := range nodes {
		if _, err := tx.Exec(ctx, `INSERT INTO lineage_nodes (project, id, kind, label, at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (project, id) DO UPDATE SET kind = $3, label = $4, at = $5`, project, n.ID, string(n.Kind), n.Label, store.Micros(n.At)); err != nil {
			return err
		}
	}
	return nil
}

func insertEdges(ctx context.Context, tx *store.Tx, project string, edges []Edge) error {
	for _, e := range edges {
		if _, err := tx.Exec(ctx, `INSERT INTO lineage_edges (project, from_id, to_id, role) VALUES ($1, $2, $3, $4) ON CONFLICT (project, from_id, to_id, role) DO NOTHING`,
			project, e.From, e.To, e.Role); err != nil {
			return err
		}
	}
	return nil
}
