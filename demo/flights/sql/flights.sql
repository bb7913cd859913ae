-- flights: one row for each scheduled departure, all instants in UTC.
--
-- The published file has local clock readings (515 is 05:15 at the airport it
-- belongs to) and delays in minutes. Every instant is derived from the schedule
-- and the delay, never from the clock reading of what happened, which does not
-- say on which day it was taken.
--
--   sched_dep_at, sched_arr_at  the schedule
--   dep_at                      when it left; null: cancelled
--   arr_at                      when it arrived; null: cancelled or diverted, so
--                               its label is never known
--   hour, weekday               of the schedule, on the clock at the origin;
--                               Monday is 1
--
-- Zones are those of airports.csv in the same package; four Caribbean airports
-- that it lacks (BQN, PSE, SJU, STT) keep Atlantic time. A destination that is
-- not listed has no arrival instant, and the contract puts its row aside.
WITH zoned AS (
    SELECT
        *,
        make_timestamp(year, month, day, sched_dep_time // 100, sched_dep_time % 100, 0.0)
            AT TIME ZONE 'America/New_York' AS sched_dep_at,
        CASE
            WHEN dest IN ('ACK', 'ALB', 'ATL', 'AVL', 'BDL', 'BGR', 'BOS', 'BTV', 'BUF', 'BWI', 'CAE', 'CAK', 'CHO',
                          'CHS', 'CLE', 'CLT', 'CMH', 'CRW', 'CVG', 'DAY', 'DCA', 'DTW', 'EYW', 'FLL', 'GRR', 'GSO',
                          'GSP', 'IAD', 'ILM', 'IND', 'JAX', 'LEX', 'LGA', 'MCO', 'MHT', 'MIA', 'MVY', 'MYR', 'ORF',
                          'PBI', 'PHL', 'PIT', 'PVD', 'PWM', 'RDU', 'RIC', 'ROC', 'RSW', 'SAV', 'SBN', 'SDF', 'SRQ',
                          'SYR', 'TPA', 'TVC', 'TYS') THEN 'America/New_York'
            WHEN dest IN ('AUS', 'BHM', 'BNA', 'DFW', 'DSM', 'HOU', 'IAH', 'MCI', 'MDW', 'MEM', 'MKE', 'MSN', 'MSP',
                          'MSY', 'OKC', 'OMA', 'ORD', 'SAT', 'STL', 'TUL', 'XNA') THEN 'America/Chicago'
            WHEN dest IN ('BUR', 'LAS', 'LAX', 'LGB', 'OAK', 'PDX', 'PSP', 'SAN', 'SEA', 'SFO', 'SJC', 'SMF', 'SNA')
                THEN 'America/Los_Angeles'
            WHEN dest IN ('ABQ', 'BZN', 'DEN', 'EGE', 'HDN', 'JAC', 'MTJ', 'SLC') THEN 'America/Denver'
            WHEN dest IN ('BQN', 'PSE', 'SJU', 'STT') THEN 'America/Puerto_Rico'
            WHEN dest = 'PHX' THEN 'America/Phoenix'
            WHEN dest = 'ANC' THEN 'America/Anchorage'
            WHEN dest = 'HNL' THEN 'Pacific/Honolulu'
        END AS dest_zone
    FROM source
),
read AS (
    -- The scheduled arrival reading, on the day it is at the destination when
    -- the flight leaves.
    SELECT
        *,
        (date_trunc('day', sched_dep_at AT TIME ZONE dest_zone)
            + to_minutes((sched_arr_time // 100) * 60 + sched_arr_time % 100)) AT TIME ZONE dest_zone AS reading
    FROM zoned
),
scheduled AS (
    -- A reading before the departure belongs to the next day.
    SELECT *, CASE WHEN reading > sched_dep_at THEN reading ELSE reading + INTERVAL 24 HOURS END AS sched_arr_at
    FROM read
)
SELECT
    carrier,
    flight,
    tailnum,
    origin,
    dest,
    sched_dep_at,
    sched_dep_at + to_minutes(dep_delay) AS dep_at,
    sched_arr_at,
    sched_arr_at + to_minutes(arr_delay) AS arr_at,
    dep_delay,
    arr_delay,
    air_time,
    distance,
    sched_dep_time // 100 AS hour,
    date_part('isodow', make_date(year, month, day)) AS weekday
FROM scheduled
