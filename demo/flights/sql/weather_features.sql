-- weather_now: the observation at the origin.
SELECT
    origin,
    observed_at AS event_at,
    known_at,
    temp,
    humid,
    wind_speed,
    precip,
    pressure,
    visib
FROM weather
