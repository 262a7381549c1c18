"""Clients that others wrote, several models in one process, batches over HTTP, and Prometheus' view of them."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tests.support import bundles
from tests.support.serving import SECONDS, Running, binary_body, serve, start
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.integration


def versioned(root: Path, version: str, seed: int, kind: str = "linear") -> Path:
    """A bundle of another version, with weights of its own, below a repository as `ortc build` lays it out."""
    recipe = bundles.linear()
    recipe.model = bundles.linear_model(seed)
    recipe.manifest |= {"version": version, "name": kind}
    return recipe.write(root / kind / version / "cpu")


def expected(seed: int, x: Any) -> Any:
    reference = bundles.onnx.reference.ReferenceEvaluator(bundles.linear_model(seed))
    return reference.run(["y"], {"x": x})[0]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    versioned(root, "1.0.0", seed=1)
    versioned(root, "1.0.0", seed=5, kind="other")
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Running]:
    arguments = ("--repository", str(repository), "--max-batch-size", "16", "--max-queue-delay-us", "2000")
    with serve(repository / "linear/1.0.0/cpu", *arguments) as running:
        yield running
        running.stop()


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    made = triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4, network_timeout=SECONDS)
    yield made
    made.close()


def tensor(x: Any, *, binary: bool) -> list[Any]:
    made = triton.InferInput("x", x.shape, "FP32")
    made.set_data_from_numpy(x, binary_data=binary)
    return [made]


def test_tritons_client_sees_a_server_and_its_models(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "1.0.0")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("linear")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("asked", [True, False, None])
def test_tritons_client_infers_in_json_and_binary(client: Any, sent: bool, asked: bool | None) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    outputs = None if asked is None else [triton.InferRequestedOutput("y", binary_data=asked)]
    result = client.infer("linear", tensor(x, binary=sent), outputs=outputs, request_id="me")
    assert np.allclose(result.as_numpy("y"), expected(1, x), atol=1e-5)
    assert result.get_response()["id"] == "me"
    assert (result.as_numpy("label") is None) == (asked is not None)


def test_tritons_client_is_told_its_mistakes(client: Any) -> None:
    for x, message in (
        (np.zeros((1, 5), np.float32), "axis 1 is 5. Send 4"),
        (np.zeros((17, 4), np.float32), "Send 1 to 16"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            client.infer("linear", tensor(x, binary=True))
    with pytest.raises(InferenceServerException, match="no such model"):
        client.infer("nobody", tensor(np.zeros((1, 4), np.float32), binary=True))


def test_tritons_client_infers_from_many_threads_in_batches(server: Running, client: Any) -> None:
    before = server.metric("ortc_compute_seconds_count", model="linear")
    random = np.random.default_rng(3)
    asked = [random.standard_normal((1 + number % 3, 4)).astype(np.float32) for number in range(200)]

    def ask(x: Any) -> Any:
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=SECONDS) as mine:
            return mine.infer("linear", tensor(x, binary=True)).as_numpy("y")

    with ThreadPoolExecutor(16) as pool:
        for x, y in zip(asked, pool.map(ask, asked), strict=True):
            assert np.allclose(y, expected(1, x), atol=1e-5)
    runs = server.metric("ortc_compute_seconds_count", model="linear") - before
    assert 0 < runs < 200


def test_a_new_version_is_loaded_without_a_request_dropped(server: Running, client: Any, repository: Path) -> None:
    x = np.ones((2, 4), np.float32)
    content, length = binary_body({"x": x}, {"x": "FP32"}, outputs=[{"name": "y"}])
    answers: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            headers = {"Inference-Header-Content-Length": length}
            status, _, body = server.exchange("POST", "/v2/models/linear/infer", content, headers)
            answers.append((status, json.loads(body)))

    versioned(repository, "1.1.0", seed=2)
    with ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(ask) for _ in range(4)]
        client.load_model("linear")
        known = len(answers)
        while len(answers) < known + 20 and not any(asker.done() for asker in askers):
            time.sleep(0.01)
        stop.set()
        for asker in askers:
            asker.result(SECONDS)
    seeds = {"1.0.0": 1, "1.1.0": 2}
    for status, answer in answers:
        assert status == 200
        found = np.array(answer["outputs"][0]["data"], np.float32).reshape(2, 3)
        assert np.allclose(found, expected(seeds[answer["model_version"]], x), atol=1e-5)
    assert answers[-1][1]["model_version"] == "1.1.0"
    assert client.get_model_metadata("linear")["versions"] == ["1.0.0", "1.1.0"]
    old = client.infer("linear", tensor(x, binary=True), model_version="1.0.0")
    assert np.allclose(old.as_numpy("y"), expected(1, x), atol=1e-5)


def test_the_repository_can_be_listed_loaded_and_unloaded(server: Running, client: Any) -> None:
    x = np.ones((1, 4), np.float32)
    states = {(entry["name"], entry["version"]): entry["state"] for entry in client.get_model_repository_index()}
    assert states["linear", "1.0.0"] == "READY"
    assert states["other", "1.0.0"] in ("READY", "UNAVAILABLE")
    answer = client.infer("other", tensor(x, binary=True)).as_numpy("y")  # loaded when it is asked for
    assert np.allclose(answer, expected(5, x), atol=1e-5)
    client.unload_model("other")
    assert not client.is_model_ready("other")
    assert server.request("POST", "/v2/models/other/infer", b"{}")[1] == {"error": "the model was unloaded"}
    assert server.metric("ortc_model_memory_bytes", model="other") == 0
    client.load_model("other")
    assert client.is_model_ready("other")


def test_a_bundle_that_breaks_its_promise_is_not_loaded_and_others_serve_on(
    server: Running, client: Any, repository: Path
) -> None:
    broken = repository / "linear/9.0.0/cpu"
    shutil.copytree(repository / "linear/1.0.0/cpu", broken)
    bundles.edit_json(broken / "manifest.json", version="9.0.0")  # no longer what SHA256SUMS says
    with pytest.raises(InferenceServerException, match="digest-mismatch"):
        client.load_model("linear")
    shutil.rmtree(broken.parent)
    assert client.infer("linear", tensor(np.ones((1, 4), np.float32), binary=True)).get_response()
    assert server.metric("ortc_model_loads_total", outcome="failure") == 1


def test_under_a_memory_budget_models_take_turns(repository: Path) -> None:
    x = np.ones((1, 4), np.float32)
    content, length = binary_body({"x": x}, {"x": "FP32"})
    headers = {"Inference-Header-Content-Length": length}
    own = repository / "linear/1.0.0/cpu"
    with serve(own, "--repository", str(repository), "--preload", "other") as running:
        sizes = {name: running.metric("ortc_model_memory_bytes", model=name) for name in ("linear", "other")}
        running.stop()
    assert min(sizes.values()) > 0
    # What a small session takes varies from load to load: room for the largest seen, and little more.
    budget = int(max(sizes.values()) * 1.5) + 2**20
    with serve(own, "--repository", str(repository), "--model-memory-bytes", str(budget)) as running:
        for name in ("other", "linear", "other"):
            status, _, _ = running.exchange("POST", f"/v2/models/{name}/versions/1.0.0/infer", content, headers)
            assert status == 200
        running.stop()
    process = start(own, "--model-memory-bytes", "10")
    _, log = process.communicate(timeout=SECONDS)
    assert process.returncode == 14
    assert "all models together may take 10" in log


def test_under_a_device_budget_models_take_turns(repository: Path, tmp_path: Path) -> None:
    """What bundles take of a device is what a measurement beside them says: on the CPU nothing else does."""
    here = tmp_path / "bundles"
    needs = {"linear/1.0.0": 600, "linear/1.1.0": 600, "other/1.0.0": 300}
    for name, need in needs.items():
        root = Path(shutil.copytree(repository / name / "cpu", here / name / "cpu"))
        (root / "measurements").mkdir(exist_ok=True)
        bundles.write_json(root / "measurements" / "gpu.json", {"numbers": {"peak_device_bytes": need}})
    own = here / "linear/1.0.0/cpu"
    content, length = binary_body({"x": np.ones((1, 4), np.float32)}, {"x": "FP32"})
    headers = {"Inference-Header-Content-Length": length}
    with serve(own, "--repository", str(here), "--device-memory-bytes", "1000") as running:
        seen = []
        for name in ("other/1.0.0", "linear/1.1.0", "other/1.0.0", "linear/1.0.0"):
            model, version = name.split("/")
            path = f"/v2/models/{model}/versions/{version}/infer"
            assert running.exchange("POST", path, content, headers)[0] == 200
            index = running.request("POST", "/v2/repository/index", b'{"ready": true}')[1]
            seen.append({f"{e['name']}/{e['version']}": e["device_memory_bytes"] for e in index})
        assert all(entry["memory_bytes"] > 0 for entry in index)
        metric = running.metric("ortc_model_device_memory_bytes", model="linear", version="1.0.0")
        assert (metric, running.metric("ortc_model_memory_budget_bytes", kind="device")) == (600, 1000)
        assert running.metric("ortc_model_evictions_total") == 2
        running.stop()
    first, second = ({name: needs[name] for name in (version, "other/1.0.0")} for version in list(needs)[:2])
    assert seen == [first, second, second, first]
    process = start(own, "--device-memory-bytes", "599")
    _, log = process.communicate(timeout=SECONDS)
    assert process.returncode == 14
    assert "linear 1.0.0 needs 600 bytes of device memory, and all models together may take 599" in log


def test_every_metric_of_the_dashboard_is_exposed(server: Running) -> None:
    dashboard = json.loads((bundles.RUNTIME / "grafana-dashboard.json").read_bytes())
    text = server.exchange("GET", "/metrics")[2].decode()
    names = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:ortc|process)_\w+", target["expr"])
    }
    assert len(names) > 12
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    for name in names:
        assert name in kinds or re.sub("_(bucket|sum|count)$", "", name) in kinds, name
