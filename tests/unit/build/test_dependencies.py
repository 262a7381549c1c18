"""The provenance names everything that decided a bundle: files, code, repositories, and results of a remote cache."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError
from tests.support.plans import ROOT, accuracy, manifest, plan, target
from tests.support.whole_bundles import HOST

from ortc.build.context import Context, opened
from ortc.build.dependencies import FROM_REMOTE, base_image, dependencies
from ortc.build.executor import Executor
from ortc.build.progress import Progress
from ortc.build.stage import Stage
from ortc.build.workspace import Workspace
from ortc.bundle.assemble import Material
from ortc.bundle.supply_chain.provenance import Dependency
from ortc.common.values import Frozen
from ortc.execution.action_cache import Store
from ortc.execution.remote_cache import RemoteCache
from ortc.frontend.fetch import Fetched, FetchedFile
from ortc.spec.accuracy import Metric, SamplesFunction
from ortc.spec.model_sources import HuggingFaceSource, OnnxModel, OnnxSource
from ortc.spec.profile import Image

COMMIT = "ab" * 20
DIGEST = "cd" * 32


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "code").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "code" / "__init__.py").touch()
    (root / "code" / "metric.py").write_text("from code import helper\n\ndef score(run, samples):\n    return 1.0\n")
    (root / "code" / "run_module.py").write_text("SCALE = 2\n")
    (root / "model.onnx").write_bytes(b"graph")
    np.savez(root / "samples.npz", x=np.ones((2, 4), np.float32))
    return root


class Counted(Frozen):
    nodes: int


COUNTED: Stage[Counted] = Stage("export", ("opset",), Counted)


def context(root: Path, store: Store, source: Any, beside: Any = None, **promises: Any) -> Context:
    made = plan(ROOT / "specs" / "bert.yaml", targets=("cpu",))
    made = made.model_copy(update={"model": source, "accuracy": accuracy(**promises)})
    fetched = Fetched(directory=root, files=(FetchedFile(name="model.onnx", sha256=DIGEST, origin="path:model.onnx"),))
    workspace = Workspace(root, store, root, fetched, {} if beside is None else beside)
    with opened(made, workspace, Executor(made.name, store, Progress())) as found:
        return replace(found, host=HOST)


def found(of: Context, base: str = f"python:3.12-slim@sha256:{DIGEST}") -> dict[tuple[str, str], Dependency]:
    """The dependencies by role and name."""
    material = cast(Material, SimpleNamespace(plan=of.plan, fetched=of.workspace.fetched, opened=()))
    chosen = target().model_copy(update={"image": target().image.model_copy(update={"base_image": base})})
    listed = dependencies(of, material, chosen)
    by_name = {(entry.role, entry.name): entry for entry in listed}
    assert len(by_name) == len(listed)
    return by_name


def test_samples_metric_and_base_image_are_named(project: Path, tmp_path: Path) -> None:
    metric = Metric(entrypoint="code.metric:score", max_drop=0.1)
    source = OnnxModel(source="onnx", path="model.onnx")
    listed = found(context(project, Store(tmp_path / "cache"), source, samples="samples.npz", metric=metric))
    assert listed["samples", "samples.npz"].digest == {"sha256": sha256(project / "samples.npz")}
    code = {name: entry.digest["sha256"] for (role, name), entry in listed.items() if role == "metric code"}
    assert code["metric.py"] == sha256(project / "code" / "metric.py")
    assert sha256(project / "code" / "run_module.py") in code.values()
    assert listed["model", "model.onnx"].digest == {"sha256": DIGEST}
    image = listed["base image", "python:3.12-slim"]
    assert (image.digest, image.uri) == ({"sha256": DIGEST}, f"docker://python:3.12-slim@sha256:{DIGEST}")


def test_every_image_of_a_directory_is_named(project: Path, tmp_path: Path) -> None:
    (project / "images" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg"):
        (project / "images" / name).write_bytes(name.encode())
    source = OnnxModel(source="onnx", path="model.onnx")
    listed = found(context(project, Store(tmp_path / "cache"), source, samples="images"))
    samples = {name: entry.digest["sha256"] for (role, name), entry in listed.items() if role == "samples"}
    assert samples == {f"images/{name}": sha256(project / "images" / name) for name in ("a.png", "deep/b.jpg")}


def test_the_code_of_samples_is_named(project: Path, tmp_path: Path) -> None:
    samples = SamplesFunction(entrypoint="code.metric:score")
    source = OnnxModel(source="onnx", path="model.onnx")
    listed = found(context(project, Store(tmp_path / "cache"), source, samples=samples))
    assert listed["samples code", "metric.py"].digest == {"sha256": sha256(project / "code" / "metric.py")}


@pytest.mark.parametrize(
    ("revision", "files", "verified"),
    [
        (COMMIT, {"model.onnx": DIGEST}, "sha256 of every file"),
        (COMMIT, {}, "files by this commit"),
        (COMMIT, {"model.onnx": "ef" * 32}, "files by this commit"),
    ],
)
def test_the_repository_is_named_by_its_commit(revision: str, files: dict[str, str], verified: str) -> None:
    from ortc.build.dependencies import _repository

    source = HuggingFaceSource(source="huggingface", id="org/name", revision=revision, files=files)
    (entry,) = _repository(source, "model", {"model.onnx": DIGEST})
    assert entry.uri == f"pkg:huggingface/org/name@{COMMIT}"
    assert (entry.digest, entry.annotations) == ({"gitCommit": COMMIT}, {"verified": verified})


def test_a_branch_is_no_revision_that_was_verified() -> None:
    from ortc.build.dependencies import _repository

    source = HuggingFaceSource(source="huggingface", id="org/name", revision="main", files={"model.onnx": DIGEST})
    assert list(_repository(source, "model", {"model.onnx": DIGEST})) == []


@pytest.mark.parametrize("role", ["teacher", "reference"])
def test_models_beside_are_named(role: str, project: Path, tmp_path: Path) -> None:
    beside = SimpleNamespace(model=OnnxSource(source="onnx", path="beside.onnx"), outputs={})
    source = OnnxModel(source="onnx", path="model.onnx")
    files = Fetched(directory=project, files=(FetchedFile(name="beside.onnx", sha256="ef" * 32, origin="path"),))
    of = context(project, Store(tmp_path / "cache"), source, {role: files})
    of.plan = of.plan.model_copy(update={"model": source.model_copy(update={role: cast(Any, beside)})})
    assert found(of)[role, f"{role}/beside.onnx"].digest == {"sha256": "ef" * 32}


def test_results_of_a_remote_cache_are_named_without_its_place(project: Path, tmp_path: Path) -> None:
    url = f"memory://secret-host-{uuid.uuid4().hex}/shared"
    source = OnnxModel(source="onnx", path="model.onnx")

    def run(of: Context) -> dict[tuple[str, str], Dependency]:
        of.run(COUNTED.action("linear", {"opset": 17}), lambda _: Counted(nodes=3))
        return {key: entry for key, entry in found(of).items() if key[0] == FROM_REMOTE}

    own = context(project, Store(tmp_path / "one", RemoteCache(url)), source)
    assert run(own) == {}
    (entry,) = run(context(project, Store(tmp_path / "two", RemoteCache(url)), source)).values()
    key = next((tmp_path / "two" / "actions").iterdir()).stem
    assert entry == Dependency(
        name="export",
        role=FROM_REMOTE,
        digest={"sha256": sha256(tmp_path / "two" / "actions" / f"{key}.json")},
        uri=f"memory://redacted/actions/{key}.json",
        annotations={"key": key, "subject": "bert: linear"},
    )
    assert "secret-host" not in entry.model_dump_json()
    # A later build on that machine, without the remote cache: the result is still somebody else's.
    assert list(run(context(project, Store(tmp_path / "two"), source)).values()) == [entry]
    # Until the machine computes it itself.
    again = context(project, Store(tmp_path / "two"), source)
    again.runner = Executor(again.plan.name, again.workspace.store, Progress(), frozenset({"export"}))
    assert run(again) == {}
    assert run(context(project, Store(tmp_path / "two"), source)) == {}


@pytest.mark.parametrize("image", ["python:3.12-slim", "registry.example:5000/base:1@sha256:" + "0" * 63])
def test_an_image_without_a_digest_has_none(image: str) -> None:
    (entry,) = base_image(image)
    assert entry.digest == {}


def test_a_base_image_is_rendered_with_its_digest(tmp_path: Path) -> None:
    """The digest goes from the profile into the Dockerfile, which says of a tag alone that it may move."""
    from ortc.bundle.dockerfile import image_fields
    from ortc.bundle.render import template_environment
    from ortc.bundle.session_file import session_file
    from ortc.spec.runtimes import pins

    for image in (f"python:3.12-slim@sha256:{DIGEST}", "python:3.12-slim"):
        chosen = target().model_copy(update={"image": target().image.model_copy(update={"base_image": image})})
        session = session_file(chosen.variants[0].session, "all")
        fields = image_fields(chosen, manifest(), session, pins("onnxruntime"))
        lines = template_environment().get_template("Dockerfile.j2").render(fields).splitlines()
        assert lines.count(f"ARG BASE_IMAGE={image}") == 1
        assert any("Pin it" in line for line in lines) == ("@" not in image)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha1:" + "0" * 40, "sha256:" + "G" * 64, f"sha256:{DIGEST}0"])
def test_a_malformed_digest_is_refused(digest: str) -> None:
    with pytest.raises(ValidationError, match="a container image like"):
        Image.model_validate({"base_image": f"python:3.12-slim@{digest}", "python": "3.12"})
    Image.model_validate({"base_image": f"python:3.12-slim@sha256:{DIGEST}", "python": "3.12"})
