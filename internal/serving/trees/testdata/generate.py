"""Trains random LightGBM models and writes, for each, NAME.txt (the model) and NAME.rows (inputs | outputs of LightGBM itself).

usage: generate.py DIR SEED ROWS TREES
The first output lines of NAME.rows are "# gain ..." and "# split ...": Booster.feature_importance.
"""
import sys, os
import numpy as np, lightgbm as lgb

out, seed, rows, trees = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
r = np.random.default_rng(seed)


def matrix(n, f):
    x = r.normal(size=(n, f)) * 10.0 ** r.integers(-3, 4, size=f)
    x[:, f - 1] = np.round(x[:, f - 1])           # few distinct values
    x[r.random(x.shape) < 0.15] = np.nan
    x[r.random(x.shape) < 0.15] = 0.0
    return x


def probe(x, n):
    """Rows that also hit what training never saw: infinities, values around LightGBM's zero threshold, values equal to a threshold."""
    p = x[r.integers(0, len(x), size=n)].copy()
    odd = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-36, -1e-36, 1e-35, -1e-35, float(np.float32(1e-35)), -float(np.float32(1e-35)), 1.1e-35, -1.1e-35, 5e-324, 1e300, -1e300])
    m = r.random(p.shape) < 0.1
    p[m] = r.choice(odd, size=int(m.sum()))
    return p


def thresholds(text):
    return [float(v) for l in text.split("\n") if l.startswith("threshold=") for v in l[10:].split()]


cases = {
    "binary": {"objective": "binary"},
    "binary_sigmoid": {"objective": "binary", "sigmoid": 0.7},
    "regression": {"objective": "regression"},
    "regression_sqrt": {"objective": "regression", "reg_sqrt": True},
    "l1": {"objective": "regression_l1", "reg_sqrt": True},
    "huber": {"objective": "huber"},
    "fair": {"objective": "fair", "reg_sqrt": True},
    "poisson": {"objective": "poisson"},
    "quantile": {"objective": "quantile", "alpha": 0.3},
    "mape": {"objective": "mape"},
    "gamma": {"objective": "gamma"},
    "tweedie": {"objective": "tweedie"},
    "cross_entropy": {"objective": "cross_entropy"},
    "cross_entropy_lambda": {"objective": "cross_entropy_lambda"},
    "multiclass": {"objective": "multiclass", "num_class": 4},
    "multiclassova": {"objective": "multiclassova", "num_class": 3, "sigmoid": 1.3},
    "lambdarank": {"objective": "lambdarank"},
    "xendcg": {"objective": "rank_xendcg"},
    "custom": {"objective": "custom"},
    "dart": {"objective": "binary", "boosting": "dart", "drop_rate": 0.5, "skip_drop": 0.1},
    "dart_multiclass": {"objective": "multiclass", "num_class": 3, "boosting": "dart", "drop_rate": 0.5},
    "rf": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "rf_multiclass": {"objective": "multiclass", "num_class": 3, "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "rf_regression": {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "goss": {"objective": "binary", "data_sample_strategy": "goss"},
    "zero_as_missing": {"objective": "binary", "zero_as_missing": True},
    "no_missing": {"objective": "regression", "use_missing": False},
    "monotone": {"objective": "regression", "monotone_constraints": "first"},
    "quantized": {"objective": "regression", "use_quantized_grad": True},
    "stumps": {"objective": "regression", "num_leaves": 2},
    "constant": {"objective": "regression", "min_data_in_leaf": 10000},
    "tiny_values": {"objective": "regression"},
}

for name, params in cases.items():
    n, f = 400, int(r.integers(3, 9))
    p = {"num_leaves": int(r.integers(4, 40)), "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": seed, **params}
    x = matrix(n, f)
    if name == "tiny_values":
        x = x * 10.0 ** -r.integers(33, 38, size=f)
    if p.get("monotone_constraints") == "first":
        p["monotone_constraints"] = [1] + [0] * (f - 1)
    score = np.nan_to_num(x[:, 0]) / (np.nanstd(x[:, 0]) or 1) + np.isnan(x[:, 1]) + 0.3 * r.normal(size=n) + (x[:, 2] == 0)
    o, group = p["objective"], None
    if o in ("binary", "cross_entropy", "cross_entropy_lambda"):
        y = (score > np.median(score)).astype(float)
    elif o.startswith("multiclass"):
        y = np.digitize(score, np.quantile(score, np.linspace(0, 1, p["num_class"] + 1)[1:-1])).astype(float)
    elif o in ("lambdarank", "rank_xendcg"):
        y, group = np.digitize(score, np.quantile(score, [0.3, 0.6])), [20] * (n // 20)
    elif o in ("poisson", "gamma", "tweedie", "mape"):
        y = np.exp(score / 2) + 0.01
    else:
        y = score
    if o == "custom":
        p["objective"] = lambda a, d: (a - d.get_label(), np.ones_like(a))
    text = lgb.train(p, lgb.Dataset(x, y, group=group), trees).model_to_string()
    booster = lgb.Booster(model_str=text)
    q = probe(x, rows)
    t = thresholds(text)
    if t:
        m = r.random(q.shape) < 0.05
        q[m] = r.choice(t, size=int(m.sum()))
    got = np.atleast_2d(booster.predict(q, num_threads=1))
    if got.shape[0] != len(q):
        got = got.T
    with open(os.path.join(out, name + ".txt"), "w") as w:
        w.write(text)
    with open(os.path.join(out, name + ".rows"), "w") as w:
        for kind in ("gain", "split"):
            w.write("# " + kind + " " + " ".join(repr(float(v)) for v in booster.feature_importance(kind)) + "\n")
        for a, b in zip(q, got):
            w.write(" ".join(repr(float(v)) for v in a) + " | " + " ".join(repr(float(v)) for v in b) + "\n")

# What the engine must refuse; the file name says which key it must name.
x = matrix(400, 4)
x[:, 3] = r.integers(0, 8, size=400)
base = {"objective": "regression", "verbose": -1, "num_leaves": 5, "num_threads": 1}
with open(os.path.join(out, "refuse_num_cat.txt"), "w") as w:
    w.write(lgb.train({**base, "min_data_per_group": 1, "cat_smooth": 0}, lgb.Dataset(x, x[:, 3] % 2, categorical_feature=[3]), 2).model_to_string())
with open(os.path.join(out, "refuse_is_linear.txt"), "w") as w:
    w.write(lgb.train({**base, "linear_tree": True}, lgb.Dataset(x, np.nan_to_num(x[:, 0])), 2).model_to_string())
