"""External data of ONNX files: from wherever a graph may keep it, and from nowhere else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.graphs import floats, model, node

from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.frontend.fetch import Fetched, fetch
from ortc.frontend.import_onnx import import_onnx
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.spec.model_sources import ExportedProgramSource, OnnxSource

WEIGHTS = np.arange(4, dtype=np.float32).reshape(2, 2)
LINEAR = {"x": ["batch", 2]}
ANSWER = {"y": ["batch", 2]}


def moved(tensor: onnx.TensorProto, root: Path, location: str, offset: int = 0) -> None:
    """Move the bytes of a tensor to a file."""
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(len(raw)))):
        tensor.external_data.add(key=key, value=value)
    place = root / location
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(bytes(offset) + raw)


def initializer(root: Path, location: str = "w.bin", offset: int = 0) -> onnx.ModelProto:
    made = model([node("MatMul", "x w", "y")], LINEAR, ANSWER, {"w": WEIGHTS})
    moved(made.graph.initializer[0], root, location, offset)
    return made


def constant(root: Path) -> onnx.ModelProto:
    made = model(
        [node("Constant", "", "w", value=numpy_helper.from_array(WEIGHTS, "w")), node("MatMul", "x w", "y")],
        LINEAR,
        ANSWER,
    )
    moved(made.graph.node[0].attribute[0].t, root, "constants/c.bin")
    return made


def branches(root: Path) -> onnx.ModelProto:
    def branch(name: str) -> onnx.GraphProto:
        outputs = [helper.make_tensor_value_info(f"y_{name}", TensorProto.FLOAT, ["batch", 2])]
        weights = numpy_helper.from_array(WEIGHTS, f"w_{name}")
        graph = helper.make_graph([node("MatMul", f"x w_{name}", f"y_{name}")], name, [], outputs, [weights])
        moved(graph.initializer[0], root, f"{name}.bin")
        return graph

    chosen = node("If", "positive", "y", then_branch=branch("then"), else_branch=branch("else"))
    nodes = [node("ReduceSum", "x", "sum", keepdims=0), node("Greater", "sum zero", "positive"), chosen]
    return model(nodes, LINEAR, ANSWER, {"zero": np.float32(0).reshape(())})


def function(root: Path) -> onnx.ModelProto:
    nodes = [node("Constant", "", "w", value=numpy_helper.from_array(WEIGHTS, "w")), node("MatMul", "a w", "r")]
    times = helper.make_function("local", "Times", ["a"], ["r"], nodes, [helper.make_opsetid("", 17)])
    moved(times.node[0].attribute[0].t, root, "f.bin")
    call = node("Times", "x", "y")
    call.domain = "local"
    made = model([call], LINEAR, ANSWER)
    made.functions.append(times)
    made.opset_import.append(helper.make_opsetid("local", 1))
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def fetched(root: Path, made: onnx.ModelProto | None = None, name: str = "net.onnx") -> Fetched:
    if made is not None:
        (root / name).write_bytes(made.SerializeToString())
    work = root.parent / "work"
    work.mkdir()
    return fetch(OnnxSource(source="onnx", path=name), root, Store(root.parent / "cache"), work)


KINDS: dict[str, Callable[[Path], onnx.ModelProto]] = {
    "beside": initializer,
    "below": lambda root: initializer(root, "deep/er/w.bin", 4096),
    "constant": constant,
    "branches": branches,
    "function": function,
}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_other_files_become_part_of_the_graph(kind: str, root: Path) -> None:
    found = fetched(root, KINDS[kind](root))
    axes = (AxisPlan(name="batch", min=1, typical=1, max=4),)
    plan = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=None, outputs=None)
    (root.parent / "out").mkdir()
    import_onnx(found.directory / "net.onnx", plan, root.parent / "out")
    made = onnx.load(root.parent / "out" / "model.onnx", load_external_data=False)
    x = floats(1, 2).reshape(1, 2)
    (answer,) = onnx.reference.ReferenceEvaluator(made).run(None, {"x": x})
    np.testing.assert_array_equal(answer, x @ WEIGHTS)
    names = {file.name for file in found.files}
    assert {"net.onnx"} < names == {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_copies_are_what_was_hashed(root: Path) -> None:
    found = fetched(root, initializer(root, "sub/w.bin"))
    assert found.digests()["sub/w.bin"] == hashlib.sha256((root / "sub/w.bin").read_bytes()).hexdigest()
    copies = [found.directory / file.name for file in found.files]
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in copies)


def test_hard_links_are_copied(root: Path) -> None:
    made = initializer(root, "real.bin")
    os.link(root / "real.bin", root / "w.bin")
    made.graph.initializer[0].external_data[0].value = "w.bin"
    assert "w.bin" in fetched(root, made).digests()


def test_a_cache_of_links_into_one_directory(root: Path) -> None:
    """As the hub's cache: snapshots/COMMIT/NAME leads to blobs/DIGEST, for graph and data alike."""
    made = initializer(root, "model.onnx_data")
    blobs, snapshot = root / "blobs", root / "snapshots" / "commit" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (root / "model.onnx_data").rename(blobs / "b")
    (blobs / "a").write_bytes(made.SerializeToString())
    for name, blob in (("model.onnx", "a"), ("model.onnx_data", "b")):
        (snapshot / name).symlink_to(f"../../../blobs/{blob}")
    assert set(fetched(root, name="snapshots/commit/onnx/model.onnx").digests()) == {"model.onnx", "model.onnx_data"}


def test_a_link_inside_of_the_graphs_directory(root: Path) -> None:
    made = initializer(root, "data/w.bin")
    (root / "w.bin").symlink_to("data/w.bin")
    made.graph.initializer[0].external_data[0].value = "w.bin"
    assert "w.bin" in fetched(root, made).digests()


@pytest.mark.parametrize("through", ["file", "directory"])
def test_a_link_that_leads_out_is_refused(through: str, root: Path) -> None:
    secret = root.parent / "secret"
    secret.mkdir()
    (secret / "w.bin").write_bytes(b"private" * 10)
    made = initializer(root, "sub/w.bin")
    (root / "sub/w.bin").unlink()
    if through == "file":
        (root / "sub/w.bin").symlink_to(secret / "w.bin")
    else:
        (root / "sub").rmdir()
        (root / "sub").symlink_to(secret)
    with pytest.raises(StageError, match=r"`sub/w\.bin`, a link that leads out"):
        fetched(root, made)


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), lambda path: os.mkfifo(path), lambda path: path.symlink_to(path)]
)
def test_what_is_no_file_is_refused(make: Callable[[Path], object], root: Path) -> None:
    made = initializer(root)
    (root / "w.bin").unlink()
    make(root / "w.bin")
    with pytest.raises(StageError, match=r"keeps weights in `w\.bin`, which is not there"):
        fetched(root, made)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"


def test_git_lfs_pointers_are_named(root: Path) -> None:
    (root / "net.onnx").write_bytes(POINTER)
    with pytest.raises(StageError, match=r"`net\.onnx` is a Git LFS pointer") as refused:
        fetched(root)
    assert refused.value.help == "fetch it with `git lfs pull`"


def test_git_lfs_pointers_of_weights_are_named(root: Path) -> None:
    made = initializer(root)
    (root / "w.bin").write_bytes(POINTER)
    with pytest.raises(StageError, match=r"`w\.bin` is a Git LFS pointer"):
        fetched(root, made)
    (root / "p.pt2").write_bytes(POINTER)
    source = ExportedProgramSource(source="exported_program", path="p.pt2")
    with pytest.raises(StageError, match=r"`p\.pt2` is a Git LFS pointer"):
        fetch(source, root, Store(root.parent / "cache"), root.parent / "work")
