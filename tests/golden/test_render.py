"""What is rendered for each target profile, whole: compared with `tests/golden/PROFILE/`, file by file.

Rewrite the expected trees with `pytest tests/golden --update-golden`, and read the difference.
"""

from __future__ import annotations

import difflib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ortc.bundle.manifest import (
    AxisInfo,
    InputInfo,
    Manifest,
    ModelInfo,
    OutputInfo,
    PlacementInfo,
    Promises,
    Provenance,
    RuntimeInfo,
    SourceFileInfo,
    VariantInfo,
)
from ortc.bundle.render import render
from ortc.bundle.script_files import script_sources
from ortc.bundle.session_file import session_file
from ortc.bundle.supply_chain.sbom import SBOM, sbom
from ortc.bundle.tensorrt_profiles import with_profiles
from ortc.common.resources import targets_dir, templates_dir
from ortc.plan.plan import AxisPlan, InputPlan, TargetPlan
from ortc.plan.resolve import resolve
from ortc.spec.deployment import Spec
from ortc.spec.load import load_profile
from ortc.spec.runtimes import extras, pins

HERE = Path(__file__).parent
PROFILES = sorted(path.stem for path in targets_dir().glob("*.yaml"))
RUNTIME = "runtime/"
SPEC = {
    "apiVersion": "ortc/v1alpha1",
    "kind": "ModelDeployment",
    "name": "small",
    "version": "1.2.3",
    "model": {"source": "onnx", "path": "small.onnx"},
    "export": {
        "opset": 17,
        "dynamic_axes": {
            "batch": {"min": 1, "typical": 2, "max": 16},
            "sequence": {"min": 1, "typical": 128, "max": 512},
        },
    },
}


def target_plan(profile: str) -> TargetPlan:
    spec = Spec.model_validate_json(json.dumps({**SPEC, "targets": {profile: {}}}))
    return resolve(spec, {profile: load_profile(profile)}).targets[0]


def manifest(target: TargetPlan, *, fit_to_serve: bool = True, provisional: bool = False) -> Manifest:
    """A manifest whose every value is written here, but for those that the profile decides."""
    runtime = target.variants[0].runtime
    return Manifest(
        name="small",
        version="1.2.3",
        target=target.name,
        platforms=target.platforms,
        fit_to_serve=fit_to_serve,
        unfit_reason=None if fit_to_serve else "the weights are random",
        provisional=provisional,
        stamp=315532800,
        model=ModelInfo(
            file="model/model.onnx",
            bytes=1000,
            opset=17,
            ir_version=10,
            domains={},
            exporter="onnx",
            exporter_reason=None,
        ),
        inputs=(
            InputInfo(name="input_ids", dtype="int64", shape=("batch", "sequence"), range=(0, 30521)),
            InputInfo(name="attention_mask", dtype="int64", shape=("batch", "sequence"), range=None),
        ),
        outputs=(
            OutputInfo(name="hidden", dtype="float32", shape=("batch", "sequence", 8)),
            OutputInfo(name="count", dtype="int64", shape=(None,)),
        ),
        axes=(
            AxisInfo(name="batch", min=1, typical=2, max=16),
            AxisInfo(name="sequence", min=1, typical=128, max=512),
        ),
        runtime=RuntimeInfo(
            package=runtime.package,
            version=runtime.version,
            minimum_version=runtime.minimum_version,
            python=pins(runtime.pins).pythons,
        ),
        variant=VariantInfo(name="fp32", precision="fp32", graph_level="all", tuning=None, batch_invariant=True),
        placement=PlacementInfo(max_cpu_nodes=None),
        promises=Promises(at={"batch": 2, "sequence": 128}, latency={"p99": 0.1}, limits={}),
        golden=(),
        warmup=({"batch": 2, "sequence": 128},),
        decisions=(),
        provenance=Provenance(
            plan_sha256="0" * 64,
            source="onnx:small.onnx",
            revision="0123456789abcdef0123456789abcdef01234567",
            files=(SourceFileInfo(name="small.onnx", sha256="1" * 64),),
            tools={"python": "3.12.0"},
        ),
        files=(),
    )


def rendered(target: TargetPlan, manifest: Manifest) -> dict[str, str]:
    variant = target.variants[0]
    pinned = pins(variant.runtime.pins)
    inputs = tuple(InputPlan(name=entry.name, dtype=entry.dtype, shape=entry.shape) for entry in manifest.inputs)
    axes = tuple(AxisPlan(name=axis.name, min=axis.min, typical=axis.typical, max=axis.max) for axis in manifest.axes)
    session = with_profiles(variant.session, inputs, axes)
    files = render(target, manifest, session_file(session, "all"), pinned)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "model").mkdir()
        (Path(scratch) / "model" / "model.onnx").write_bytes(b"a model")
        optional = {} if target.is_javascript else {extra.name: extra.packages(target.platforms) for extra in extras()}
        bill = sbom(manifest, pinned.packages(target.platforms), Path(scratch), optional, pinned.npm)
    return {**{file.path: file.content.decode() for file in files}, SBOM: bill}


def compare(place: Path, actual: dict[str, str], *, update: bool) -> None:
    """Fail with the difference when a directory is not exactly these files."""
    if update:
        shutil.rmtree(place, ignore_errors=True)
        for name, text in actual.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text, "utf-8")
    expected = {
        str(path.relative_to(place)): path.read_text("utf-8") for path in sorted(place.rglob("*")) if path.is_file()
    }
    lines: list[str] = []
    for name in sorted(expected.keys() | actual.keys()):
        before, after = (tree.get(name, "").splitlines(keepends=True) for tree in (expected, actual))
        if name not in expected:
            lines.append(f"{name}: not expected\n")
        elif name not in actual:
            lines.append(f"{name}: missing\n")
        lines += difflib.unified_diff(before, after, f"expected/{name}", f"rendered/{name}")
    if lines:
        command = "pytest tests/golden --update-golden"
        pytest.fail(f"{place.relative_to(HERE)} differs; `{command}` rewrites it\n{''.join(lines)}", pytrace=False)


@pytest.mark.parametrize("profile", PROFILES)
def test_tree(profile: str, update_golden: bool) -> None:
    target = target_plan(profile)
    # What needs a GPU is provisional when it is built without one: the commonest form.
    tree = rendered(target, manifest(target, provisional=target.requires_gpu))
    runtime = {name: tree.pop(name) for name in list(tree) if name.startswith(RUNTIME)}
    if target.is_javascript:
        loose = ("index.html", "_headers", "isolation.js")
        copied = {**runtime, **{name: tree.pop(name) for name in loose if name in tree}}
        compare(HERE / profile, tree, update=update_golden)
        sources = script_sources(is_web=target.is_web, texts=False)
        assert copied == {name: source.read_text("utf-8") for name, source in sources.items()}
        assert {"runtime/loader.mjs", "runtime/session.mjs", "runtime/source.mjs"} <= runtime.keys()
        return
    compare(HERE / profile, tree, update=update_golden)
    # Copied, not rendered: the templates are what is expected.
    assert runtime == {
        f"{RUNTIME}{path.relative_to(templates_dir() / RUNTIME)}": path.read_text("utf-8")
        for path in (templates_dir() / RUNTIME).rglob("*.*")
        # Bundles that take texts have more.
        if path.is_file() and not {"__pycache__", "processing"} & set(path.parts)
    }
    assert {"runtime/loader.py", "runtime/server.py", "runtime/serving/protocol.py"} <= runtime.keys()
    for name, text in runtime.items():
        if name.endswith(".py"):
            compile(text, name, "exec", dont_inherit=True)
        elif name.endswith(".json"):
            json.loads(text)


def test_unfit_tree(update_golden: bool) -> None:
    target = target_plan("cpu")
    tree = rendered(target, manifest(target, fit_to_serve=False))
    compare(HERE / "cpu-unfit", {name: tree[name] for name in ("README.md", "Dockerfile")}, update=update_golden)


def test_every_tree_has_a_profile() -> None:
    trees = {path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert trees == {*PROFILES, "cpu-unfit", "diff", "emit"}


def test_rendering_is_deterministic() -> None:
    for profile in PROFILES:
        target = target_plan(profile)
        assert rendered(target, manifest(target)) == rendered(target, manifest(target))


@pytest.mark.parametrize("profile", [profile for profile in PROFILES if load_profile(profile).image])
def test_dockerfile_is_clean_under_hadolint(profile: str, tmp_path: Path) -> None:
    target = target_plan(profile)
    text = rendered(target, manifest(target))["Dockerfile"]
    assert "hadolint" not in text, "no rule is ignored"
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", "-"],
        input=text,
        # From a directory without a configuration file: none of its rules is off.
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda place: (place / "extra").write_text("more\n"), "extra: missing"),
        (lambda place: (place / "Dockerfile").unlink(), "Dockerfile: not expected"),
        (lambda place: (place / "session.json").write_text("{}"), "-{}"),
    ],
    ids=["extra", "missing", "changed"],
)
def test_a_difference_fails(change: object, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: a file too many, one too few, another text."""
    assert callable(change)
    monkeypatch.setattr(sys.modules[__name__], "HERE", tmp_path)
    target = target_plan("cpu")
    tree = rendered(target, manifest(target))
    compare(tmp_path / "cpu", tree, update=True)
    change(tmp_path / "cpu")
    with pytest.raises(pytest.fail.Exception, match=told):
        compare(tmp_path / "cpu", tree, update=False)
