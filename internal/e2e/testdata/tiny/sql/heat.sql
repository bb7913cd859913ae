-- heat: how warm the machine has been during the last three readings.
SELECT machine, read_at AS event_at, avg(temp) OVER recent AS temp_3h, max(load) OVER recent AS load_3h
FROM hours
WINDOW recent AS (PARTITION BY machine ORDER BY read_at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)
