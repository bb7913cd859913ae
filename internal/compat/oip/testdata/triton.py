"""Every call that tritonclient's HTTP client makes against an inference server of tabular models; fails with the first difference."""
import json, sys
import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

url, token = sys.argv[1], sys.argv[2]
given = json.load(sys.stdin)
rows = np.array(given["rows"])
want = np.array(given["want"]).reshape(len(rows), -1)
# The client writes into the dictionary that it is given: each call gets its own.
h = {"Authorization": "Bearer " + token}
c = http.InferenceServerClient(url)

assert c.is_server_live(headers=dict(h)) and c.is_server_ready(headers=dict(h))
assert c.get_server_metadata(headers=dict(h))["name"] == "falaj"
assert c.is_model_ready("kind", headers=dict(h)) and c.is_model_ready("kind@staging", "7", headers=dict(h))
assert not c.is_model_ready("none", headers=dict(h))
meta = c.get_model_metadata("kind", headers=dict(h))
assert meta["inputs"][0]["shape"] == [-1, rows.shape[1]] and meta["outputs"][0]["name"] == "predict", meta
assert {"name": "delay", "version": "7", "state": "READY"} in c.get_model_repository_index(headers=dict(h))


def check(result, expect=want):
    got = result.as_numpy("predict")
    assert got.shape == expect.shape and got.dtype == np.float64, (got.shape, got.dtype)
    assert (got == expect).all(), np.abs(got - expect).max()


for binary_in in (False, True):
    for binary_out in (False, True, None):
        for compression in (None, "gzip", "deflate"):
            x = http.InferInput("x", list(rows.shape), "FP64")
            x.set_data_from_numpy(rows, binary_data=binary_in)
            outputs = None if binary_out is None else [http.InferRequestedOutput("predict", binary_data=binary_out), http.InferRequestedOutput("variant", binary_data=binary_out)]
            r = c.infer("kind@staging", [x], outputs=outputs, request_id="mine", headers=dict(h), request_compression_algorithm=compression)
            check(r)
            assert r.get_response()["id"] == "mine" and r.get_response()["model_version"] == "7"
            if outputs:
                assert [v.decode() if isinstance(v, bytes) else v for v in r.as_numpy("variant")] == ["champion"] * len(rows)

# One tensor for each feature, by name.
inputs = []
for i, name in enumerate(meta["parameters"]["features"]):
    t = http.InferInput(name, [len(rows)], "FP64")
    t.set_data_from_numpy(rows[:, i].copy(), binary_data=i % 2 == 0)
    inputs.append(t)
check(c.infer("kind", inputs, headers=dict(h)))

# By entity, with every kind of tensor.
for binary in (False, True):
    origin = http.InferInput("origin", [1], "BYTES")
    origin.set_data_from_numpy(np.array(["JFK"], dtype=object), binary_data=binary)
    hour = http.InferInput("hour", [1], "INT64")
    hour.set_data_from_numpy(np.array([4], dtype=np.int64), binary_data=binary)
    for kind, dtype in (("FP64", np.float64), ("FP32", np.float32)) + ((("FP16", np.float16),) if binary else ()):
        load = http.InferInput("load", [1], kind)
        load.set_data_from_numpy(np.array([0.5], dtype=dtype), binary_data=binary)
        check(c.infer("delay", [origin, hour, load], headers=dict(h), parameters={"unit": "u1"}), np.array(given["one"]).reshape(1, 1))

# Missing values arrive as missing.
hole = rows[:1].copy()
hole[:] = np.nan
x = http.InferInput("x", list(hole.shape), "FP64")
x.set_data_from_numpy(hole, binary_data=True)
a = c.infer("kind", [x], headers=dict(h)).as_numpy("predict")
x.set_data_from_numpy(hole, binary_data=False)
assert (c.infer("kind", [x], headers=dict(h)).as_numpy("predict") == a).all()

# An error is the client's exception with the server's words.
try:
    x = http.InferInput("x", [1, 1], "FP64")
    x.set_data_from_numpy(np.zeros((1, 1)))
    c.infer("kind", [x], headers=dict(h))
    raise SystemExit("a narrow matrix was taken")
except InferenceServerException as e:
    assert "columns" in str(e), e
try:
    c.infer("kind", [x])
    raise SystemExit("nobody was answered")
except InferenceServerException as e:
    assert "signed-in" in str(e), e
print("all equal")
