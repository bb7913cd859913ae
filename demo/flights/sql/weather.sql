-- weather: one row for each airport and hour, in UTC.
--
-- An observation comes out after its hour, so it is known one hour later: a
-- prediction made at 12:00 may use the observation of 11:00, never that of its
-- own hour.
SELECT
    origin,
    time_hour AS observed_at,
    time_hour + INTERVAL 1 HOUR AS known_at,
    temp,
    humid,
    wind_speed,
    precip,
    pressure,
    visib
FROM source
