"""One integration test: the packaged release answers by its key, as a probability."""

import json
import os
import urllib.request

tensors = {"inputs": [{"name": "machine", "shape": [1], "datatype": "BYTES", "data": ["m1"]}, {"name": "load", "shape": [1], "datatype": "FP64", "data": [0.5]}]}
request = urllib.request.Request(
    os.environ["FALAJ_ENDPOINT"] + "/infer",
    data=json.dumps(tensors).encode(),
    headers={"Authorization": "Bearer " + os.environ["FALAJ_TOKEN"], "Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=30) as answer:
    p = json.load(answer)["outputs"][0]["data"][0]
print("1..1")
print(("ok" if 0 < p < 1 else "not ok"), "1 - an answer by key is a probability")
raise SystemExit(0 if 0 < p < 1 else 1)
