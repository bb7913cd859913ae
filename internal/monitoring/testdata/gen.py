"""Writes golden.json with numpy, scipy and scikit-learn: `python gen.py > golden.json`.

Versions are written into the file. DeLong's variance is computed from its definition (all pairs), not by midranks.
"""
import json

import numpy as np
import scipy
import sklearn
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score


def delong(a, b, y):
    pos, neg = y == 1, y == 0
    out = []
    for s in (a, b):
        d = s[pos][:, None] - s[neg][None, :]
        psi = np.where(d > 0, 1.0, np.where(d == 0, 0.5, 0.0))
        out.append((psi.mean(), psi.mean(axis=1), psi.mean(axis=0)))
    v10 = np.cov(np.vstack([out[0][1], out[1][1]]))
    v01 = np.cov(np.vstack([out[0][2], out[1][2]]))
    s = v10 / pos.sum() + v01 / neg.sum()
    return out[0][0], out[1][0], float(s[0, 0] + s[1, 1] - 2 * s[0, 1]), float(s[0, 0])


def paired(la, lb):
    d = lb - la
    return float(d.var(ddof=1) / len(d))


def psi(p, q, floor=0.0001):
    p, q = np.asarray(p) / np.sum(p), np.asarray(q) / np.sum(q)
    keep = (p > 0) | (q > 0)
    p, q = np.maximum(p[keep], floor), np.maximum(q[keep], floor)
    return float(np.sum((q - p) * np.log(q / p)))


rng = np.random.default_rng(20131)
scores = []
for n, rate, decimals in ((12, 0.5, 1), (200, 0.3, 2), (500, 0.22, 6)):
    y = (rng.random(n) < rate).astype(float)
    y[0], y[1], y[2], y[3] = 0, 1, 0, 1
    base = rng.normal(size=n) + y
    a = np.clip(np.round(1 / (1 + np.exp(-(base + rng.normal(size=n)))), decimals), 0, 1)
    b = np.clip(np.round(1 / (1 + np.exp(-(base + 0.5 * rng.normal(size=n)))), decimals), 0, 1)
    auc_a, auc_b, var, var_a = delong(a, b, y)
    la = np.where(y == 1, -np.log(np.clip(a, 2**-52, 1 - 2**-52)), -np.log(1 - np.clip(a, 2**-52, 1 - 2**-52)))
    lb = np.where(y == 1, -np.log(np.clip(b, 2**-52, 1 - 2**-52)), -np.log(1 - np.clip(b, 2**-52, 1 - 2**-52)))
    bins = np.clip(np.ceil(a * 10).astype(int) - 1, 0, 9)
    scores.append({
        "label": y.tolist(), "a": a.tolist(), "b": b.tolist(),
        "auc_a": float(roc_auc_score(y, a)), "auc_b": float(roc_auc_score(y, b)),
        "delong_auc_a": float(auc_a), "delong_auc_b": float(auc_b), "delong_variance": var, "auc_variance_a": var_a,
        "brier_variance_a": float(((a - y) ** 2).var(ddof=1) / n), "log_loss_variance_a": float(la.var(ddof=1) / n),
        "brier_a": float(brier_score_loss(y, a)), "log_loss_a": float(log_loss(y, a)),
        "brier_variance": paired((a - y) ** 2, (b - y) ** 2), "log_loss_variance": paired(la, lb),
        "calibration_rows": np.bincount(bins, minlength=10).tolist(),
    })

histograms = []
for k in (2, 11, 21):
    p = rng.integers(0, 500, k)
    q = rng.integers(0, 300, k)
    p[0], q[-1] = 0, 0
    histograms.append({"p": p.tolist(), "q": q.tolist(), "psi": psi(p, q), "js": float(jensenshannon(p, q, base=2))})

column = np.round(rng.gamma(2.0, 10.0, 400), 1)
column[::17] = np.nan
edges = [4.0, 9.5, 15.0, 22.0, 40.0]
finite = column[~np.isnan(column)]
which = np.searchsorted(edges, finite, side="left")
binned = {"edges": edges, "column": [None if np.isnan(v) else float(v) for v in column],
          "counts": np.bincount(which, minlength=6).tolist(), "nulls": int(np.isnan(column).sum())}

lat = np.exp(rng.normal(7.5, 1.2, 4000))
latency = {"us": np.round(lat).astype(int).tolist(),
           "quantiles": {str(q): float(np.quantile(np.round(lat), q, method="inverted_cdf")) for q in (0.5, 0.9, 0.99)}}

print(json.dumps({"versions": {"numpy": np.__version__, "scipy": scipy.__version__, "sklearn": sklearn.__version__},
                  "scores": scores, "histograms": histograms, "binned": binned, "latency": latency}))
