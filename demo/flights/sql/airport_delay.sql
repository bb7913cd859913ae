-- airport_delay: how late the origin has been running during the last 3 hours,
-- one row for each full hour with traffic.
--
-- A departure delay is known when the flight leaves, an arrival delay when it
-- arrives, and each counts from that instant. So a row is made of nothing later
-- than its own time: it happens and is known on the hour.
WITH events AS (
    SELECT origin, dep_at AS happened_at, dep_delay, NULL AS arr_delay FROM departures WHERE dep_at IS NOT NULL
    UNION ALL
    SELECT origin, arr_at, NULL, arr_delay FROM departures WHERE arr_at IS NOT NULL
),
hourly AS (
    SELECT
        origin,
        date_trunc('hour', happened_at) + INTERVAL 1 HOUR AS event_at,
        sum(dep_delay) AS dep_minutes,
        count(dep_delay) AS departed,
        sum(arr_delay) AS arr_minutes,
        count(arr_delay) AS arrived,
        count(*) FILTER (arr_delay > 15) AS late
    FROM events
    GROUP BY ALL
)
SELECT
    origin,
    event_at,
    sum(dep_minutes) OVER recent / nullif(sum(departed) OVER recent, 0) AS dep_delay_3h,
    CAST(sum(departed) OVER recent AS DOUBLE) AS departures_3h,
    sum(arr_minutes) OVER recent / nullif(sum(arrived) OVER recent, 0) AS arr_delay_3h,
    sum(late) OVER recent / nullif(sum(arrived) OVER recent, 0) AS late_share_3h
FROM hourly
WINDOW recent AS (PARTITION BY origin ORDER BY event_at RANGE BETWEEN INTERVAL 2 HOURS PRECEDING AND CURRENT ROW)
