-- departures: what features and labels need of a flight. The tail number stays
-- behind: nothing after this table can point at a person.
SELECT
    carrier,
    flight,
    origin,
    dest,
    sched_dep_at,
    dep_at,
    arr_at,
    dep_delay,
    arr_delay,
    distance,
    hour,
    weekday
FROM flights
