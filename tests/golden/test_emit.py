"""What deploys a bundle, whole, and judged by the schemas of what reads it.

Rewrite the expected trees with `pytest tests/golden --update-golden`, and read the difference.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tests.support.bundles import edit_json, seal
from tests.support.whole_bundles import add_measurement, whole_bundle

from ortc.__main__ import run
from ortc.bundle.delivery.manifests import KINDS, emit, resource_name
from ortc.common.errors import StageError

HERE = Path(__file__).parent / "emit"
DATA = Path(__file__).parents[1] / "data"
CUDA = [{"name": "CUDAExecutionProvider", "options": {}}, {"name": "CPUExecutionProvider", "options": {}}]


def cpu(place: Path) -> Path:
    """Measured on two machines, for two platforms; every tensor starts with the batch."""
    bundle = whole_bundle(place / "cpu", platforms=["linux/amd64", "linux/arm64"])
    add_measurement(bundle, p50=0.5, cores=8)
    return bundle


def gpu(place: Path) -> Path:
    """Provisional: nobody has measured it; a request's answer depends on its batch; version and name are unusual."""
    variant = {"name": "int8", "precision": "int8", "graph_level": "extended", "tuning": None, "batch_invariant": False}
    bundle = whole_bundle(
        place / "server-gpu",
        name="3d_net.v2",
        version="1.0.0+cu13",
        target="server-gpu",
        provisional=True,
        variant=variant,
    )
    session = json.loads((bundle / "session.json").read_bytes())
    session["session_options"]["graph_optimization_level"] = "extended"
    edit_json(bundle / "session.json", providers=CUDA, session_options=session["session_options"])
    for path in (bundle / "measurements").iterdir():
        path.unlink()
    return seal(bundle)


TREES = {"cpu": cpu, "gpu": gpu}


def written(bundle: Path) -> dict[str, str]:
    emit(bundle, KINDS)
    place = bundle.with_name(bundle.name + ".deploy")
    paths = sorted(path for path in place.rglob("*") if path.is_file() and path.suffix != ".onnx")
    return {path.relative_to(place).as_posix(): path.read_text("utf-8") for path in paths}


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    return request.param, written(TREES[request.param](tmp_path))


def test_trees(tree: tuple[str, dict[str, str]], update_golden: bool) -> None:
    name, files = tree
    # The manifest of the bundle has the loader's digest in it, which is not what this is about.
    files = {path: "\n".join(_masked(line) for line in text.split("\n")) for path, text in files.items()}
    if update_golden:
        for path, text in files.items():
            (HERE / name / path).parent.mkdir(parents=True, exist_ok=True)
            (HERE / name / path).write_text(text, "utf-8")
    expected = {
        p.relative_to(HERE / name).as_posix(): p.read_text("utf-8") for p in (HERE / name).rglob("*") if p.is_file()
    }
    assert files == expected, "`pytest tests/golden --update-golden` rewrites it"


def _masked(line: str) -> str:
    before, key, _ = line.partition("ortc/manifest-sha256: ")
    return f'{before}{key}"…"' if key else line


def pod(containers: list[dict[str, Any]], spec: dict[str, Any]) -> dict[str, Any]:
    """A pod with the parts that KServe hands on to Kubernetes."""
    parts = {name: spec[name] for name in ("securityContext", "affinity", "terminationGracePeriodSeconds")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {**parts, "containers": containers}}


def test_kubernetes_accepts_them(tree: tuple[str, dict[str, str]]) -> None:
    name, files = tree
    documents = list(yaml.safe_load_all(files["k8s.yaml"]))
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    kinds = [document["kind"] for document in documents]
    assert kinds == ["Deployment", "Service", *(["HorizontalPodAutoscaler"] if name == "cpu" else [])]
    broken = json.loads(json.dumps(documents[0]))
    broken["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_kserve_accepts_them(tree: tuple[str, dict[str, str]]) -> None:
    service = yaml.safe_load(tree[1]["kserve.yaml"])
    schema = json.loads((DATA / "kserve-inferenceservice.schema.json").read_bytes())
    jsonschema.validate(service, schema)
    predictor = service["spec"]["predictor"]
    kubernetes_validate.validate(
        pod(predictor["containers"], predictor), kubernetes_validate.latest_version(), strict=True
    )
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**service, "spec": {"predictor": {**predictor, "minReplica": 1}}}, schema)


def model_config() -> Any:
    """Triton's own message; its package has no use for the rest of a client here."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


def test_triton_accepts_them(tree: tuple[str, dict[str, str]]) -> None:
    name, files = tree
    (text,) = (text for path, text in files.items() if path.endswith("config.pbtxt"))
    config = text_format.Parse(text, model_config()())
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 16)
    assert [list(tensor.dims) for tensor in config.output] == [[3], [1]]
    assert list(config.output[1].reshape.shape) == []
    assert config.output[1].HasField("reshape")
    assert config.HasField("dynamic_batching") == (name == "cpu"), "only where an answer does not depend on others"
    kinds = config.instance_group[0].DESCRIPTOR.enum_types_by_name["Kind"].values_by_number
    assert kinds[config.instance_group[0].kind].name == ("KIND_CPU" if name == "cpu" else "KIND_GPU")
    assert config.optimization.graph.level == (0 if name == "cpu" else 1)


def test_what_is_written_is_what_was_measured(tmp_path: Path) -> None:
    bundle = cpu(tmp_path)
    deployment = next(yaml.safe_load_all(written(bundle)["k8s.yaml"]))
    resources = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]
    # 80 MB were measured; 64 MiB are for the server, half as much again the limit.
    assert resources["requests"]["memory"] == "141Mi"
    assert resources["limits"]["memory"] == "211Mi"
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"]
    copied = tmp_path / "cpu.deploy" / "triton" / "linear" / "1" / "model.onnx"
    assert copied.read_bytes() == (bundle / "model" / "model.onnx").read_bytes()


def test_images_are_named_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = cpu(tmp_path)
    image = "registry.example/{name}/{target}:{version}"
    assert run(["emit", str(bundle), "--emit", "k8s", "--image", image, "-o", str(tmp_path / "out"), "--json"]) == 0
    (path,) = json.loads(capsys.readouterr().out)["written"]
    deployment = next(yaml.safe_load_all(Path(path).read_text()))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.example/linear/cpu:1.0.0"
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["k8s.yaml"]
    assert run(["emit", str(bundle), "--image", "{registry}/x"]) == 2
    assert run(["emit", str(bundle), "--emit", "k8s,helm"]) == 2
    assert "`helm` is none of k8s, kserve, triton" in capsys.readouterr().err


def test_what_is_not_to_be_deployed(tmp_path: Path) -> None:
    unfit = whole_bundle(tmp_path / "unfit", fit_to_serve=False, unfit_reason="random weights")
    with pytest.raises(StageError, match="not fit to serve, random weights"):
        emit(unfit, KINDS)
    damaged = whole_bundle(tmp_path / "damaged")
    (damaged / "session.json").write_text("{}")
    with pytest.raises(StageError, match="damaged"):
        emit(damaged, KINDS)
    assert not list(tmp_path.glob("*.deploy"))


def test_a_model_without_a_batch_of_its_own(tmp_path: Path) -> None:
    outputs = [
        {"name": "y", "dtype": "float32", "shape": ["batch", 3]},
        {"name": "label", "dtype": "int64", "shape": [None]},
    ]
    bundle = whole_bundle(tmp_path / "cpu", outputs=outputs)
    config = text_format.Parse(written(bundle)["triton/linear/config.pbtxt"], model_config()())
    assert config.max_batch_size == 0
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[-1, 4], [-1, 3], [-1]]
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bert-cpu", "bert-cpu"), ("3d_net.v2-gpu", "m-3d-net-v2-gpu"), ("a" * 70, "a" * 63), ("a" * 62 + "-b", "a" * 62)],
)
def test_names_of_resources(name: str, expected: str) -> None:
    assert resource_name(name) == expected
