"""Two bundles by what lies in them: manifests, graphs, measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from tests.support import bundles
from tests.support.keys import write_keys
from tests.support.plans import manifest, target
from tests.support.whole_bundles import whole_bundle

from ortc.__main__ import run
from ortc.build.progress import Progress
from ortc.bundle.manifest import DecisionInfo, ModelInfo, Promises, Provenance, SourceFileInfo, VariantInfo, to_json
from ortc.bundle.publish import seal
from ortc.bundle.session_file import session_file
from ortc.bundle.supply_chain.signing import sign
from ortc.common.errors import StageError, UsageError
from ortc.diff.bundles import Bundle, operators, sections, sizes
from ortc.diff.compare import NOT_RUN, SAME, compare_bundles
from ortc.diff.latency import timings
from ortc.diff.report import BundleDiff
from ortc.diff.sides import Bundles, side
from ortc.execution.action_cache import Store
from ortc.execution.host import Host
from ortc.spec.profile import GraphLevel

MODEL = ModelInfo(
    file="model/model.onnx", bytes=3, opset=17, ir_version=10, domains={}, exporter="dynamo", exporter_reason=None
)


def write(
    place: Path,
    *,
    graph: onnx.ModelProto | None = None,
    level: GraphLevel = "all",
    requirements: str = "numpy==2.4.6 --hash=sha256:aa\n",
    **changes: Any,
) -> Path:
    """A sealed bundle without golden data."""
    (place / "model").mkdir(parents=True)
    onnx.save(graph or bundles.linear_model(), place / "model" / "model.onnx")
    (place / "session.json").write_text(to_json(session_file(target().variants[0].session, level)), "utf-8")
    (place / "requirements.txt").write_text(requirements, "utf-8")
    seal(place, manifest(**changes))
    return place


def measured(place: Path, fingerprint: str, p50: float, *, shape: str = "batch=1", threads: int = 2) -> None:
    """Add a measurement; half of what a real one holds."""
    interval = {"value": p50, "low": p50 * 0.9, "high": p50 * 1.1, "samples": 420}
    start = {"value": 0.2, "low": None, "high": None, "samples": 5}
    numbers = {"p50_ms": interval, "p90_ms": interval, "p99_ms": interval, "start_seconds": start}
    host = Host(platform="linux/amd64", cpu="A CPU", isa=(), cores=2, memory=2**30, gpus=())
    document = {
        "format_version": 1,
        "host": host.model_dump(mode="json"),
        "verdicts": [],
        "numbers": {**numbers, "eager_p50_ms": None, "speedup": None, "peak_rss_bytes": 1000},
        "race": {"shape": shape, "threads": threads, "contenders": []},
    }
    (place / "measurements").mkdir(exist_ok=True)
    (place / "measurements" / f"{fingerprint}.json").write_text(json.dumps(document))


def found(before: Path, after: Path) -> dict[str, list[tuple[str, Any, Any]]]:
    return {
        section.name: [(change.dotted, change.before, change.after) for change in section.changes]
        for section in sections(Bundle(before), Bundle(after))
    }


def test_every_part_is_told(tmp_path: Path) -> None:
    before = write(tmp_path / "a")
    after = write(
        tmp_path / "b",
        level="basic",
        requirements="numpy==2.5.0 --hash=sha256:bb\nprotobuf==7.0\n",
        version="1.1.0",
        provisional=True,
        model=MODEL.model_copy(update={"opset": 18, "bytes": 6}),
        variant=VariantInfo(name="int8", precision="int8", graph_level="basic", tuning=None, batch_invariant=False),
        promises=Promises(at={}, latency={"p99": 0.1}, limits={}),
        decisions=(DecisionInfo(variant="fp32", outcome="rejected", reason="slower"),),
        provenance=Provenance(
            plan_sha256="1" * 64,
            source="huggingface:x/y",
            revision="def",
            files=(SourceFileInfo(name="model.safetensors", sha256="2" * 64),),
            tools={"torch": "2.13.0"},
        ),
        runtime=manifest().runtime.model_copy(update={"version": "1.32.0"}),
    )
    assert found(before, after) == {
        "identity": [("version", "1.0.0", "1.1.0"), ("provisional", False, True)],
        "source": [
            ("plan_sha256", "0" * 64, "1" * 64),
            ("revision", "abc", "def"),
            ('files."model.safetensors"', None, "2" * 64),
            ("tools.torch", None, "2.13.0"),
        ],
        "model": [("opset", 17, 18)],
        "variant": [
            ("name", "fp32", "int8"),
            ("precision", "fp32", "int8"),
            ("graph_level", "all", "basic"),
            ("batch_invariant", True, False),
        ],
        "decisions": [("fp32", None, {"outcome": "rejected", "reason": "slower"})],
        "promises": [("latency.p99", None, 0.1)],
        "runtime": [("version", "1.31.1", "1.32.0")],
        "requirements": [("numpy", "2.4.6", "2.5.0"), ("protobuf", None, "7.0")],
        "session": [("session_options.graph_optimization_level", "all", "basic")],
    }
    ratio = sizes(Bundle(before), Bundle(after)).ratio
    assert ratio == 2.0
    assert found(before, before) == {}


def test_operators_are_counted_where_the_weights_are_not_there(tmp_path: Path) -> None:
    model = bundles.linear_model()
    model.graph.node.append(helper.make_node("Tanh", ["y"], ["z"]))
    branch = helper.make_graph(
        [helper.make_node("Exp", ["y"], ["e"])], "b", [], [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)]
    )
    model.graph.node.append(helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch))
    before, after = write(tmp_path / "a"), write(tmp_path / "b", graph=model)
    onnx.save(
        bundles.linear_model(),
        before / "model" / "model.onnx",
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    (before / "model" / "weights").unlink()
    told = operators(Bundle(before), Bundle(after))
    assert [(entry.operator, entry.before, entry.after) for entry in told] == [
        ("Exp", 0, 2),
        ("If", 0, 1),
        ("Tanh", 1, 2),
    ]


def test_measurements_are_compared_on_the_same_hardware_only(tmp_path: Path) -> None:
    before, after = write(tmp_path / "a"), write(tmp_path / "b")
    measured(before, "both", 10.0)
    measured(after, "both", 5.0)
    measured(before, "mine", 10.0)
    measured(after, "yours", 1.0)
    measured(before, "shapes", 10.0)
    measured(after, "shapes", 10.0, shape="batch=2")
    measured(before, "threads", 10.0)
    measured(after, "threads", 10.0, threads=4)
    told = {entry.fingerprint: entry.comparable for entry in timings(Bundle(before), Bundle(after))}
    assert told == {
        "both": None,
        "mine": "only A was measured on this hardware",
        "yours": "only B was measured on this hardware",
        "shapes": "A was measured at batch=1, B at batch=2",
        "threads": "A was measured with 2 threads, B with 4",
    }
    numbers = next(entry for entry in timings(Bundle(before), Bundle(after)) if entry.fingerprint == "both")
    assert numbers.before is not None
    assert numbers.after is not None
    assert (numbers.before.p50_ms.value, numbers.after.p50_ms.value) == (10.0, 5.0)


def test_a_measurement_without_times_is_none(tmp_path: Path) -> None:
    bundle = write(tmp_path / "a")
    measured(bundle, "x", 1.0)
    path = bundle / "measurements" / "x.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "numbers": None, "race": None}))
    assert timings(Bundle(bundle), Bundle(bundle)) == ()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / "manifest.json").unlink(), "is no bundle: it has no manifest.json"),
        (lambda place: (place / "session.json").write_text("{}"), r"session\.json is not of a format"),
        (lambda place: (place / "requirements.txt").unlink(), "is not a whole bundle"),
        (lambda place: (place / "model" / "model.onnx").write_bytes(b"\xff" * 40), "no ONNX graph that can be read"),
        (lambda place: (place / "model" / "model.onnx").unlink(), "has no `model/model.onnx`"),
        (
            lambda place: (place / "measurements").mkdir() or (place / "measurements" / "x.json").write_text("{"),
            "no measurement that this ortc reads",
        ),
    ],
    ids=["manifest", "session", "requirements", "graph", "no-graph", "measurement"],
)
def test_damaged_bundles(damage: Any, message: str, tmp_path: Path) -> None:
    whole, broken = write(tmp_path / "a"), write(tmp_path / "b")
    damage(broken)
    with pytest.raises(StageError, match=message):
        compare(side(str(whole)), Bundles("b", {"b": broken}, single=True))


def compare(before: Any, after: Any, **options: Any) -> BundleDiff:
    return compare_bundles(before, after, Store(Path("nowhere")), Progress(), **{"run": False, **options})


def test_a_model_outside_of_the_bundle_is_not_read(tmp_path: Path) -> None:
    outside = MODEL.model_copy(update={"file": "../a/model/model.onnx"})
    before, after = write(tmp_path / "a"), write(tmp_path / "b", model=outside)
    with pytest.raises(StageError, match=r"manifest\.json is not .*`model\.file`"):
        compare(side(str(before)), side(str(after)))


def test_directories_target_by_target(tmp_path: Path) -> None:
    for name, targets in (("a", ("cpu", "edge", "old")), ("b", ("cpu", "edge", "new"))):
        for label in targets:
            version = "1.1.0" if (name, label) == ("b", "edge") else "1.0.0"
            write(tmp_path / name / label, target=label, version=version)
    before, after = side(str(tmp_path / "a")), side(str(tmp_path / "b"))
    diff = compare(before, after)
    assert (diff.same, diff.added, diff.removed) == (False, ("new",), ("old",))
    assert [(entry.target, entry.same, entry.numerics.skipped) for entry in diff.targets] == [
        ("cpu", True, SAME),
        ("edge", False, NOT_RUN),
    ]
    only = compare(before, after, targets=("cpu",))
    assert (only.same, only.added, only.removed) == (True, (), ())
    with pytest.raises(UsageError, match="neither side has any of these targets; there are cpu, edge, new, old"):
        compare(before, after, targets=("gpu",))
    with pytest.raises(UsageError, match="one bundle has one target"):
        compare(side(str(tmp_path / "a" / "cpu")), side(str(tmp_path / "b" / "cpu")), targets=("cpu",))


def test_a_bundle_for_another_platform_is_not_run(tmp_path: Path) -> None:
    before = write(tmp_path / "a")
    after = write(tmp_path / "b", platforms=("plan9/mips",))
    diff = compare(side(str(after)), side(str(before)), run=True, measure=True)
    told = diff.targets[0]
    assert str(told.numerics.skipped).startswith("A is for plan9/mips, this host is linux/")
    assert told.race is not None
    assert told.race.skipped == told.numerics.skipped


def test_with_a_key_both_bundles_are_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = write_keys(tmp_path / "keys")
    before, after = (str(whole_bundle(tmp_path / name, seed=seed)) for seed, name in enumerate("ab"))
    asked = ["diff", before, after, "--no-run", "--key", str(public)]
    sign(Path(before), private)
    assert run(asked) == 5
    assert "attestations/bundle.sig" in capsys.readouterr().err
    sign(Path(after), private)
    assert run(asked) == 0
    spec = str(Path(__file__).parents[3] / "specs" / "bert.yaml")
    assert run(["diff", spec, spec, "--key", str(public)]) == 2
    assert "--key, --no-run and --measure are for bundles" in capsys.readouterr().err
