"""Train the delay model: will a flight arrive more than 15 minutes late?

Plain Python, plain mlflow. The training set is a Parquet file that falaj has
joined point in time: FALAJ_TRAINING_SET holds its path. Its columns are those of
sql/spine.sql followed by the features of the service, already numbers. mlflow
finds the server by MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN.

Three models are fitted on growing blocks of time, so that every figure comes
from days after all days that its model has seen:

    |-------- 70 % --------|          val_auc  on the next 15 %
    |------------ 85 % -----------|   test_auc, test_brier on the last 15 %
    |--------------- 100 % --------------|   the model that is registered
"""

import argparse
import logging
import os
import time
import warnings

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # git is not needed here
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
warnings.filterwarnings("ignore", category=DeprecationWarning)
warnings.filterwarnings("ignore", message=".*infer_string.*")
warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")

LABEL = "late"
NOT_FEATURES = ["carrier", "flight", "origin", "dest", "sched_dep_at", "at", "label_known_at", LABEL]
DELAYS = ["dep_delay_3h", "arr_delay_3h", "dest_delay_6h"]


def say(text):
    print(text, flush=True)


def arguments(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--trees", type=int, default=100)
    p.add_argument("--leaves", type=int, default=15)
    p.add_argument("--learning-rate", type=float, default=0.1)
    p.add_argument("--history-days", type=int, default=0, help="train on the newest days only; 0: on all of them")
    p.add_argument("--delays-in", choices=["minutes", "hours"], default="minutes", help="unit of the delay features")
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--threads", type=int, default=1, help="more than one only on an idle machine: OpenMP waits by spinning")
    return p.parse_args(argv)


def labelled(frame, history_days=0):
    """Rows with a label in the order of time, the newest history_days of them only."""
    frame = frame[frame[LABEL].notna()]
    if history_days > 0:
        import pandas as pd

        frame = frame[frame["at"] >= frame["at"].max() - pd.Timedelta(days=history_days)]
    return frame.sort_values(["at", "origin", "carrier", "flight"], kind="stable").reset_index(drop=True)


def features(frame, delays_in="minutes"):
    """The feature columns as they stand in the file: the order in which they are served."""
    x = frame[[c for c in frame.columns if c not in NOT_FEATURES]].astype("float64")
    if delays_in == "hours":
        # Tidier numbers, and not one split changes: trees do not care for units.
        # What is served are minutes, though.
        x[DELAYS] = x[DELAYS] / 60
    return x


def blocks(at, shares=(0.70, 0.85)):
    """Row numbers at which the blocks end; rows of one instant stay together."""
    n, ends = len(at), []
    for share in shares:
        i = int(n * share)
        while 0 < i < n and at[i] == at[i - 1]:
            i += 1
        ends.append(i)
    return ends


def auc(label, score):
    """Area under the ROC curve; ties count half."""
    import numpy as np

    _, where, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[where]
    positive = label == 1
    n1, n0 = int(positive.sum()), int((~positive).sum())
    if n1 == 0 or n0 == 0:
        raise SystemExit("The hold-out has one class only: it is too short to measure an AUC.")
    return float((rank[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def fit(x, y, args, name):
    import lightgbm

    def progress(env):
        done = env.iteration + 1
        if done % 20 == 0 or done == env.end_iteration:
            say(f"  {name}: {done}/{env.end_iteration} trees")

    started = time.monotonic()
    booster = lightgbm.train(
        {
            "objective": "binary",
            "num_leaves": args.leaves,
            "learning_rate": args.learning_rate,
            "min_data_in_leaf": 200,
            "num_threads": args.threads,
            "force_col_wise": True,
            "deterministic": True,
            "seed": args.seed,
            "verbose": -1,
        },
        lightgbm.Dataset(x, label=y, free_raw_data=True),
        num_boost_round=args.trees,
        callbacks=[progress],
    )
    say(f"  {name}: {len(x)} rows in {time.monotonic() - started:.1f} s")
    return booster


def main():
    args = arguments()
    path = os.environ.get("FALAJ_TRAINING_SET")
    if not path:
        raise SystemExit("FALAJ_TRAINING_SET is not set: it is the path of the training set. `falaj run` sets it.")
    say("starting: importing pandas, LightGBM and mlflow")
    import mlflow
    import mlflow.data
    import mlflow.lightgbm
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature

    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # about pip, which a runtime does not have
    frame = labelled(pd.read_parquet(path), args.history_days)
    if len(frame) < 1000:
        raise SystemExit(f"The training set has {len(frame)} labelled rows; at least 1000 are needed.")
    x, y = features(frame, args.delays_in), frame[LABEL].to_numpy()
    if not np.isin(y, (0, 1)).all():
        raise SystemExit(f"The label {LABEL} has values other than 0 and 1.")
    first, last = frame["at"].iloc[0], frame["at"].iloc[-1]
    say(f"{len(frame)} flights from {first:%Y-%m-%d} to {last:%Y-%m-%d}, {y.mean():.1%} late, {x.shape[1]} features")

    with mlflow.start_run() as run:
        mlflow.log_params({**vars(args), "features": x.shape[1]})
        data = mlflow.data.from_pandas(x.assign(**{LABEL: y}), source=path, targets=LABEL, name="delay_training_set")
        mlflow.log_input(data, context="training")

        a, b = blocks(frame["at"].to_numpy())
        early = fit(x.iloc[:a], y[:a], args, "70 % of the time")
        val_auc = auc(y[a:b], early.predict(x.iloc[a:b]))
        say(f"  val_auc {val_auc:.4f}")
        late = fit(x.iloc[:b], y[:b], args, "85 % of the time")
        score = late.predict(x.iloc[b:])
        test_auc, brier = auc(y[b:], score), float(np.mean((score - y[b:]) ** 2))
        say(f"  test_auc {test_auc:.4f}, test_brier {brier:.4f}")
        model = fit(x, y, args, "all of it")
        mlflow.log_metrics(
            {
                "val_auc": val_auc,
                "test_auc": test_auc,
                "test_brier": brier,
                "rows": len(frame),
                "late_share": float(y.mean()),
            }
        )
        gain = sorted(zip(x.columns, model.feature_importance("gain")), key=lambda t: -t[1])
        total = sum(g for _, g in gain) or 1.0
        mlflow.log_dict({name: g / total for name, g in gain}, "importance.json")
        for name, g in gain[:3]:
            say(f"  {name}: {g / total:.0%} of the gain")

        mlflow.lightgbm.log_model(
            model,
            name="model",
            signature=infer_signature(x.head(5), model.predict(x.head(5))),
            pip_requirements=[f"lightgbm=={__import__('lightgbm').__version__}"],
            registered_model_name=os.environ.get("FALAJ_MODEL", "delay"),
        )
        say(f"registered {os.environ.get('FALAJ_MODEL', 'delay')} from run {run.info.run_id}")


if __name__ == "__main__":
    main()
