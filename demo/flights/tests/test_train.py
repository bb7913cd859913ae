"""Unit tests of train.py. They need no server and no training set."""

import pathlib
import sys

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import train  # noqa: E402


def flights(n=10):
    at = pd.Timestamp("2013-01-01") + pd.to_timedelta(np.arange(n) // 2, unit="h")
    return pd.DataFrame(
        {
            "carrier": "UA",
            "flight": np.arange(n),
            "origin": "EWR",
            "dest": "IAH",
            "sched_dep_at": at,
            "at": at,
            "label_known_at": at,
            "late": np.arange(n) % 2.0,
            "dep_delay_3h": np.arange(n) * 6.0,
            "arr_delay_3h": 0.0,
            "dest_delay_6h": 30.0,
            "distance": 1400,
        }
    )


def test_features_keep_the_order_of_the_file():
    assert list(train.features(flights())) == ["dep_delay_3h", "arr_delay_3h", "dest_delay_6h", "distance"]


def test_no_key_no_time_and_no_label_is_a_feature():
    assert not set(train.features(flights())) & set(train.NOT_FEATURES)


def test_flights_that_never_arrived_are_left_out():
    frame = flights()
    frame.loc[3, "late"] = np.nan
    assert 3 not in train.labelled(frame)["flight"].to_list()
    assert len(train.labelled(frame)) == 9


def test_rows_come_in_the_order_of_time():
    shuffled = flights().sample(frac=1, random_state=1)
    assert train.labelled(shuffled)["at"].is_monotonic_increasing


def test_history_keeps_the_newest_days():
    frame = flights(200)  # 100 hours
    kept = train.labelled(frame, history_days=1)
    assert kept["at"].min() == frame["at"].max() - pd.Timedelta(days=1)


def test_blocks_do_not_cut_an_instant():
    at = flights(101)["at"].to_numpy()
    for end in train.blocks(at):
        assert at[end] != at[end - 1]


@pytest.mark.parametrize(
    "label, score, want",
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 1.0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], 0.0),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
        ([0, 1, 1], [0.2, 0.2, 0.9], 0.75),
    ],
)
def test_auc(label, score, want):
    assert train.auc(np.array(label), np.array(score)) == want


def test_auc_of_one_class_is_refused():
    with pytest.raises(SystemExit):
        train.auc(np.ones(3), np.array([0.1, 0.2, 0.3]))


def test_a_model_learns_what_is_there():
    rng = np.random.default_rng(5)
    x = pd.DataFrame({"a": rng.normal(size=4000), "b": rng.normal(size=4000)})
    y = (x["a"] + rng.normal(size=4000) > 0).astype(float).to_numpy()
    model = train.fit(x[:3000], y[:3000], train.arguments(["--trees", "20"]), "test")
    assert 0.75 < train.auc(y[3000:], model.predict(x[3000:])) < 0.90
