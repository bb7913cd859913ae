"""An ordinary day of the unmodified mlflow client against MLFLOW_TRACKING_URI. Prints DONE when every assertion held."""
import json, math, os, sys, tempfile, time

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import infer_signature
from mlflow.tracking import MlflowClient

client = MlflowClient()


def refused(code, fn, *args, text="", **kwargs):
    try:
        fn(*args, **kwargs)
    except MlflowException as e:
        assert e.error_code == code, (e.error_code, str(e))
        assert text in str(e), str(e)
        return
    raise AssertionError(f"{fn} was not refused")


# A run without an experiment goes to the project's Default.
with mlflow.start_run() as r:
    mlflow.log_metric("x", 1)
assert mlflow.get_experiment(r.info.experiment_id).name == "Default"

# Experiments
exp_id = mlflow.create_experiment("delay", tags={"team": "ops"})
exp = mlflow.set_experiment("delay")
assert exp.experiment_id == exp_id and exp.tags["team"] == "ops"
assert exp.artifact_location == f"mlflow-artifacts:/{exp_id}", exp.artifact_location
mlflow.set_experiment_tags({"owner": "amal"})
refused("RESOURCE_ALREADY_EXISTS", mlflow.create_experiment, "delay", text="Experiment(name=delay) already exists.")
other = client.create_experiment("other")
client.rename_experiment(other, "renamed")
client.delete_experiment(other)
assert client.get_experiment(other).lifecycle_stage == "deleted"
client.restore_experiment(other)
names = [e.name for e in client.search_experiments(filter_string="tags.owner = 'amal' AND name LIKE 'del%'", order_by=["name DESC"])]
assert names == ["delay"], names
assert len(client.search_experiments(view_type=ViewType.ALL, max_results=2)) == 2

# Runs: params, metrics, tags, nested runs, batches, NaN and infinities
rng = np.random.default_rng(7)
x = pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"])
y = (x["a"] + 0.3 * x["b"] > 0).astype(int)
with mlflow.start_run(run_name="parent", description="the run") as parent:
    mlflow.log_params({"trees": 20, "lr": 0.1, "note": "späť / ok"})
    mlflow.log_param("trees", 20)
    refused("INVALID_PARAMETER_VALUE", client.log_param, parent.info.run_id, "trees", 21, text="Changing param values is not allowed.")
    for step in range(5):
        mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
    mlflow.log_metrics({"auc": 0.75, "nan": float("nan"), "inf": float("inf"), "ninf": float("-inf")})
    mlflow.set_tags({"stage": "dev", "big": "v" * 5000})
    mlflow.set_tag("gone", 1)
    mlflow.delete_tag("gone")
    with mlflow.start_run(run_name="child", nested=True) as child:
        mlflow.log_metric("auc", 0.9)
        mlflow.log_param("trees", 40)
    now = int(time.time() * 1000)
    client.log_batch(parent.info.run_id, metrics=[Metric(f"m{i % 10}", i / 3, now + i, i) for i in range(1000)])
    client.log_batch(parent.info.run_id, params=[Param(f"p{i}", str(i)) for i in range(99)], tags=[RunTag(f"t{i}", str(i)) for i in range(99)])
    refused("INVALID_PARAMETER_VALUE", client.log_batch, parent.info.run_id, params=[Param("d", "1"), Param("d", "2")])

    # Datasets
    data = mlflow.data.from_pandas(x.assign(y=y), name="flights", targets="y")
    mlflow.log_input(data, context="training")

    # Artifacts
    mlflow.log_text("hello", "notes/hello world.txt")
    mlflow.log_dict({"a": [1, 2]}, "conf.json")
    with tempfile.TemporaryDirectory() as tmp:
        os.makedirs(os.path.join(tmp, "deep", "er"))
        for i in range(3):
            open(os.path.join(tmp, "deep", "er", f"f{i}.bin"), "wb").write(bytes([i]) * (1 << 16))
        mlflow.log_artifacts(tmp, "folder")
    try:
        mlflow.log_table({"q": ["a"], "n": [1]}, "table.json")
    except ModuleNotFoundError:
        pass

    # A model, registered
    booster = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lgb.Dataset(x, y), num_boost_round=20)
    mlflow.lightgbm.log_model(booster, name="model", signature=infer_signature(x, booster.predict(x)), input_example=x.head(2), registered_model_name="delay")

run = client.get_run(parent.info.run_id)
assert run.info.status == "FINISHED" and run.info.end_time and run.info.run_name == "parent"
assert run.data.params["note"] == "späť / ok" and run.data.params["p98"] == "98" and len(run.data.params) == 102
assert run.data.metrics["loss"] == 0.2 and math.isnan(run.data.metrics["nan"]), run.data.metrics
assert run.data.metrics["inf"] == math.inf and run.data.metrics["ninf"] == -math.inf, run.data.metrics
assert run.data.tags["stage"] == "dev" and "gone" not in run.data.tags and len(run.data.tags["big"]) == 5000
assert run.data.tags["mlflow.note.content"] == "the run"
assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [1.0 / (s + 1) for s in range(5)]
assert len(client.get_metric_history(run.info.run_id, "m3")) == 100
assert run.inputs.dataset_inputs[0].dataset.name == "flights" and run.inputs.dataset_inputs[0].tags[0].value == "training"
assert json.loads(run.inputs.dataset_inputs[0].dataset.profile)["num_rows"] == 300
kid = client.get_run(child.info.run_id)
assert kid.data.tags["mlflow.parentRunId"] == run.info.run_id

# Artifacts back
assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes/hello world.txt") == "hello"
assert mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/conf.json") == {"a": [1, 2]}
listed = {f.path: f.is_dir for f in client.list_artifacts(run.info.run_id)}
assert listed["notes"] and listed["folder"] and not listed["conf.json"], listed
assert [f.path for f in client.list_artifacts(run.info.run_id, "folder/deep/er")] == [f"folder/deep/er/f{i}.bin" for i in range(3)]
with tempfile.TemporaryDirectory() as tmp:
    path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="folder", dst_path=tmp)
    assert open(os.path.join(path, "deep", "er", "f2.bin"), "rb").read() == bytes([2]) * (1 << 16)

# Search with every kind of filter and order
ids = [exp_id]


def search(filter="", order_by=None, **kw):
    return [r.info.run_name for r in client.search_runs(ids, filter, order_by=order_by, **kw)]


assert search("metrics.auc > 0.7", ["metrics.auc DESC"]) == ["child", "parent"]
assert search("metrics.auc > 0.8 AND params.trees = '40'") == ["child"]
assert search("params.note LIKE '%/ ok'") == ["parent"]
assert search("params.note ILIKE 'SP%'") == ["parent"]
assert search("tags.`mlflow.parentRunId` = '%s'" % run.info.run_id) == ["child"]
assert search("tags.stage != 'prod'") == ["parent"]
assert search("attributes.run_name = 'child'") == ["child"]
assert search("attributes.status = 'FINISHED' and start_time > 0", ["attributes.start_time ASC"]) == ["parent", "child"]
assert search("run_id IN ('%s', 'x')" % child.info.run_id) == ["child"]
assert search("dataset.name = 'flights' AND dataset.context = 'training'") == ["parent"]
assert search("metrics.inf > 1e300") == ["parent"]
assert search("", ["params.trees", "metrics.auc"]) == ["parent", "child"]
page = client.search_runs(ids, max_results=1)
assert len(page) == 1 and page.token
assert len(client.search_runs(ids, max_results=1, page_token=page.token)) == 1
df = mlflow.search_runs(experiment_names=["delay"], order_by=["metrics.auc DESC"])
assert list(df["tags.mlflow.runName"]) == ["child", "parent"] and "params.trees" in df, df
refused("INVALID_PARAMETER_VALUE", client.search_runs, ids, "metrics.auc = 'x'", text="Expected numeric value type for metric. Found 'x'")
client.delete_run(child.info.run_id)
assert search() == ["parent"] and search(run_view_type=ViewType.DELETED_ONLY) == ["child"]
client.restore_run(child.info.run_id)

# Logged models
models = client.search_logged_models([exp_id], filter_string="name = 'model'")
assert len(models) == 1 and models[0].status.name == "READY", models
logged = client.get_logged_model(models[0].model_id)
assert logged.source_run_id == run.info.run_id
client.set_logged_model_tags(logged.model_id, {"k": "v"})
assert client.get_logged_model(logged.model_id).tags["k"] == "v"
client.delete_logged_model_tag(logged.model_id, "k")
assert client.get_run(run.info.run_id).outputs.model_outputs[0].model_id == logged.model_id

# Registry
rm = client.get_registered_model("delay")
assert str(rm.latest_versions[0].version) == "1"
mv = client.get_model_version("delay", "1")
assert mv.run_id == run.info.run_id and mv.status == "READY" and mv.current_stage == "None", mv
client.update_registered_model("delay", description="predicts delay")
client.set_registered_model_tag("delay", "area", "ops")
client.update_model_version("delay", "1", description="first")
client.set_model_version_tag("delay", "1", "checked", "yes")
client.set_registered_model_alias("delay", "candidate", "1")
assert str(client.get_model_version_by_alias("delay", "candidate").version) == "1"
assert {k: str(v) for k, v in client.get_registered_model("delay").aliases.items()} == {"candidate": "1"}
second = mlflow.register_model(f"models:/{logged.model_id}", "delay")
assert str(second.version) == "2"
copied = client.copy_model_version("models:/delay/1", "delay-copy")
assert str(copied.version) == "1" and copied.source == "models:/delay/1"
found = client.search_model_versions("name = 'delay' AND tags.checked = 'yes'")
assert [str(v.version) for v in found] == ["1"]
assert [m.name for m in client.search_registered_models("name LIKE 'delay%'", order_by=["name DESC"])] == ["delay-copy", "delay"]
refused("PERMISSION_DENIED", client.set_registered_model_alias, "delay", "production", "1", text="falaj promote delay@1 production")
refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, "none", text="Registered Model with name=none not found")
refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, "delay", text="Registered Model (name=delay) already exists.")
refused("INVALID_PARAMETER_VALUE", client.create_model_version, "delay", "file:///etc/passwd", text="Invalid model version source")
client.rename_registered_model("delay-copy", "copy")
client.delete_model_version("copy", "1")
client.delete_registered_model("copy")

# The model comes back and predicts the same, by every way to name it
want = booster.predict(x)
for uri in ["models:/delay/1", "models:/delay@candidate", f"models:/{logged.model_id}", f"runs:/{run.info.run_id}/model"]:
    assert np.array_equal(mlflow.lightgbm.load_model(uri).predict(x), want), uri
assert np.allclose(mlflow.pyfunc.load_model("models:/delay/2").predict(x), want)
client.delete_registered_model_alias("delay", "candidate")

# Upload in parts
os.environ["MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD"] = "true"
os.environ["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = str(1 << 20)
os.environ["MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE"] = str(5 << 20)
blob = rng.bytes((12 << 20) + 17)
with tempfile.TemporaryDirectory() as tmp:
    big = os.path.join(tmp, "big.bin")
    open(big, "wb").write(blob)
    client.log_artifact(run.info.run_id, big, "parts")
    back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="parts/big.bin", dst_path=os.path.join(tmp, "back"))
    assert open(back, "rb").read() == blob

# What is not built says so
def scorers():
    from mlflow.utils.rest_utils import http_request, verify_rest_response
    creds = client._tracking_client.store.get_host_creds()
    verify_rest_response(http_request(creds, "/api/3.0/mlflow/scorers/list", "GET", max_retries=0), "/scorers")


refused("NOT_IMPLEMENTED", scorers, text="falaj does not have the MLflow endpoint GET /api/3.0/mlflow/scorers/list.")
client.set_terminated(client.create_run(exp_id).info.run_id, status="KILLED")
print("DONE", mlflow.__version__)
