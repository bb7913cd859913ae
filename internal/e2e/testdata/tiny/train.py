"""Trains the tiny model; --mode makes it misbehave in the ways that the tests ask for."""

import argparse
import os

p = argparse.ArgumentParser()
p.add_argument("--trees", type=int)
p.add_argument("--mode")
args = p.parse_args()

if args.mode == "crash":
    raise RuntimeError("the disk of the author is on fire")
if args.mode == "memory":
    hog = []
    while True:
        hog.append(bytearray(os.urandom(1 << 20)) * 16)
if args.mode == "forever":
    while True:
        pass

if args.mode == "leak":
    print("backwards", os.environ["MLFLOW_TRACKING_TOKEN"][::-1], flush=True)

if args.mode in ("secrets", "secrets-forever"):
    import sys
    import time

    folder = os.environ["FALAJ_SECRETS"]
    values = {name: open(os.path.join(folder, name)).read() for name in sorted(os.listdir(folder))}
    print("secrets", {name: len(value) for name, value in values.items()}, flush=True)
    for name, value in values.items():
        print("value of", name, value, flush=True)
        print("." * 16370 + value, repr([value]), file=sys.stderr, flush=True)
        print("in the environment:", value in str(dict(os.environ)), "in the command:", value in str(sys.argv), flush=True)
    print("told", flush=True)
    while args.mode == "secrets-forever":
        time.sleep(1)
        print("waiting", flush=True)

import lightgbm
import mlflow
import mlflow.lightgbm
import pandas as pd
from mlflow.models import infer_signature

frame = pd.read_parquet(os.environ["FALAJ_TRAINING_SET"]).sort_values(["at", "machine"])
frame = frame[frame["broke"].notna()].reset_index(drop=True)
x, y = frame[["temp_3h", "load_3h", "load"]].astype("float64"), frame["broke"].to_numpy()
cut = int(len(x) * 0.7)


def fit(n):
    knobs = {"objective": "binary", "num_threads": 1, "deterministic": True, "force_col_wise": True, "seed": 7, "verbose": -1, "num_leaves": 4}
    return lightgbm.train(knobs, lightgbm.Dataset(x[:n], label=y[:n]), num_boost_round=args.trees)


score = pd.Series(fit(cut).predict(x[cut:])).rank().to_numpy()
good = y[cut:] == 1
auc = (score[good].sum() - good.sum() * (good.sum() + 1) / 2) / (good.sum() * (~good).sum())
with mlflow.start_run():
    mlflow.log_param("trees", args.trees)
    mlflow.log_metric("test_auc", float(auc))
    print("test_auc", auc, flush=True)
    if args.mode != "silent":
        model = fit(len(x))
        mlflow.lightgbm.log_model(model, name="model", signature=infer_signature(x.head(), model.predict(x.head())), registered_model_name="breaks")
