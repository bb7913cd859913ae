-- spine: one row for each flight to predict, and its label.
--
-- Predictions are made on the hour for the flights that leave in the hour after
-- the next: between 60 and 119 minutes ahead. The label is known when the flight
-- arrives; one that never arrives has none. ("at" is a word of DuckDB's own, so
-- it is quoted.)
SELECT
    carrier,
    flight,
    origin,
    dest,
    sched_dep_at,
    date_trunc('hour', sched_dep_at) - INTERVAL 1 HOUR AS "at",
    distance,
    hour,
    weekday,
    arr_at AS label_known_at,
    CAST(arr_delay > 15 AS INTEGER) AS late
FROM departures
