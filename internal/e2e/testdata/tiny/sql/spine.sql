-- spine: one row for each reading to judge, and whether the machine broke before the next.
SELECT machine, read_at AS "at", load, known_at AS label_known_at, broke FROM hours
