-- dest_delay: how late flights have been arriving at the destination during the
-- last 6 hours, one row for each full hour with an arrival. An arrival delay is
-- known when the flight arrives.
WITH hourly AS (
    SELECT
        dest,
        date_trunc('hour', arr_at) + INTERVAL 1 HOUR AS event_at,
        sum(arr_delay) AS minutes,
        count(*) AS arrived
    FROM departures
    WHERE arr_at IS NOT NULL
    GROUP BY ALL
)
SELECT
    dest,
    event_at,
    sum(minutes) OVER recent / sum(arrived) OVER recent AS dest_delay_6h
FROM hourly
WINDOW recent AS (PARTITION BY dest ORDER BY event_at RANGE BETWEEN INTERVAL 5 HOURS PRECEDING AND CURRENT ROW)
