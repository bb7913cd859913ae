-- hours: what features and labels need of a reading.
SELECT machine, read_at, known_at, temp, load, broke FROM readings
