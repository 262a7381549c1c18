"""Two states of a spec: what it says, what follows, what a build does again."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.plans import ROOT

from ortc.build import instruction_sets
from ortc.build.instruction_sets import Emulator
from ortc.common.arrays import read_arrays, write_arrays
from ortc.common.errors import UsageError
from ortc.diff.report import SpecDiff
from ortc.diff.sides import SpecAt
from ortc.diff.specs import compare_specs, load
from ortc.diff.stages import _reasons
from ortc.spec.diagnostics.errors import SpecError

DIGITS = (ROOT / "specs" / "digits.yaml").read_text("utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two checkouts of what the digits need: a and b."""
    for name in ("a", "b"):
        shutil.copytree(ROOT / "examples", tmp_path / name / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / name / "pyproject.toml").touch()
        (tmp_path / name / "spec.yaml").write_text(DIGITS, "utf-8")
    return tmp_path


@pytest.fixture(autouse=True, params=[False, True], ids=["avx2", "vnni"])
def _processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines without VNNI, and with it, whose builds judge INT8 on an emulated processor as well."""
    monkeypatch.setattr(instruction_sets, "hides_overflow", lambda platforms, host: request.param)
    monkeypatch.setattr(instruction_sets, "emulator", lambda: Emulator(Path("/qemu"), "a processor"))


def edit(project: Path, old: str, new: str) -> None:
    assert old in DIGITS
    path = project / "b" / "spec.yaml"
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


def compared(project: Path, *targets: str) -> SpecDiff:
    with ExitStack() as stack:
        sides = [SpecAt(name, project / name / "spec.yaml") for name in ("a", "b")]
        return compare_specs(*(load(side, stack, targets) for side in sides))


def said(diff: SpecDiff, section: str = "spec") -> dict[str, tuple[object, object]]:
    found = next((entry.changes for entry in diff.sections if entry.name == section), ())
    return {change.dotted: (change.before, change.after) for change in found}


def anew(diff: SpecDiff) -> set[tuple[str | None, str]]:
    return {(entry.target, entry.stage) for entry in diff.stages if entry.anew}


ALL_OF_A_TARGET = {"variant", "verify", "measure", "start", "bundle"}


def test_the_same(project: Path) -> None:
    # Another text and another root, and nothing else.
    edit(project, "opset: 20", "opset: 20   # as before")
    edit(project, "export:\n", "export:\n  exporter: auto\n")
    diff = compared(project)
    assert diff.same
    assert diff.sections == ()
    assert diff.stages
    assert not anew(diff)


def test_a_base_is_how_a_spec_says_it(project: Path) -> None:
    (project / "b" / "common.yaml").write_text(DIGITS, "utf-8")
    (project / "b" / "spec.yaml").write_text("base: common.yaml\n", "utf-8")
    assert compared(project).same
    (project / "b" / "common.yaml").write_text(DIGITS.replace("cosine: 0.99\n", "cosine: 0.98\n"), "utf-8")
    assert said(compared(project)) == {"accuracy.cosine": (0.99, 0.98)}


def test_a_budget_is_judged_again_and_nothing_else_runs(project: Path) -> None:
    edit(project, "size_budget: 180kB", "size_budget: 190kB")
    diff = compared(project)
    assert said(diff) == {"targets.edge.size_budget": (180_000, 190_000)}
    assert anew(diff) == {("edge", "bundle")}
    assert said(diff, "plan") == {"targets.edge.budgets.limits.size_budget": (180_000, 190_000)}


def test_a_reason_shows_the_beginning_of_a_digest() -> None:
    before, after = ({"samples": {character * 64: number}} for number, character in enumerate("ab"))
    assert _reasons(before, after) == (f"samples.{'a' * 12}… 0 -> None", f"samples.{'b' * 12}… None -> 1")


def test_weights_from_elsewhere_are_another_model(project: Path) -> None:
    lines = DIGITS.splitlines()
    weights, sha256 = (next(line for line in lines if f" {key}: " in line) for key in ("weights", "sha256"))
    edit(project, f"{weights}\n{sha256}\n", "  weights: random\n")
    diff = compared(project)
    before = (weights.partition(": ")[2], sha256.partition(": ")[2])
    assert said(diff) == {"model.weights": (before[0], "random"), "model.sha256": (before[1], None)}
    targets = {(target, stage) for target in ("cpu", "edge") for stage in ALL_OF_A_TARGET}
    assert anew(diff) >= targets | {(None, "export"), (None, "reference"), (None, "metric")}


def test_another_opset_runs_all_but_pytorch(project: Path) -> None:
    edit(project, "opset: 20", "opset: 18")
    diff = compared(project)
    assert said(diff) == {"export.opset": (20, 18)}
    assert said(diff, "plan") == {"export.ir_version": (9, 8)}
    targets = {(target, stage) for target in ("cpu", "edge") for stage in ALL_OF_A_TARGET}
    assert anew(diff) == targets | {(None, "export"), (None, "shape matrix"), ("edge", "calibrate")}
    reasons = {entry.stage: entry.because for entry in diff.stages if entry.target is None and entry.anew}
    assert reasons["export"] == ("export.opset 20 -> 18", "export.ir_version 9 -> 8")


def test_another_precision_of_one_target_leaves_the_other_alone(project: Path) -> None:
    edit(project, "precision: fp32", "precision: bf16")
    diff = compared(project)
    assert said(diff) == {"targets.cpu.precision": ("fp32", "bf16")}
    assert anew(diff) == {("cpu", stage) for stage in ALL_OF_A_TARGET}
    reused = {(entry.target, entry.stage) for entry in diff.stages if not entry.anew}
    assert {("edge", stage) for stage in ALL_OF_A_TARGET} <= reused
    assert {(None, "export"), (None, "reference"), (None, "shape matrix")} <= reused


def test_a_variant_that_calibrates_takes_its_samples_from_those_that_judge_all(project: Path) -> None:
    # `edge` calibrates already, and holds them out whether it is built or not.
    edit(project, "precision: fp32", "precision: auto")
    diff = compared(project, "cpu")
    assert ("cpu", "calibrate") in anew(diff)
    assert not {(None, "reference"), (None, "shape matrix")} & anew(diff)
    for name in ("a", "b"):
        spec = project / name / "spec.yaml"
        spec.write_text(spec.read_text("utf-8").replace("precision: int8", "precision: fp32"), "utf-8")
    diff = compared(project, "cpu")
    assert {(None, "shape matrix"), ("cpu", "verify"), ("cpu", "calibrate")} <= anew(diff)
    made = [entry for entry in diff.stages if entry.target == "cpu" and entry.stage == "variant"]
    assert {entry.subject.startswith("cpu: fp32") for entry in made if entry.anew} == {False}
    assert {entry.subject.startswith("cpu: fp32") for entry in made if not entry.anew} == {True}


def test_targets_come_and_go(project: Path) -> None:
    edit(project, "  edge:\n", "  board:\n    profile: edge\n")
    diff = compared(project)
    assert {name: (before is None, after is None) for name, (before, after) in said(diff).items()} == {
        "targets.edge": (False, True),
        "targets.board": (True, False),
    }
    # What the other target made serves this one, but for its bundle.
    assert anew(diff) == {("board", "bundle")}
    assert said(compared(project, "cpu")) == {}
    with pytest.raises(UsageError, match="none of these targets; it has cpu, board"):
        compared(project, "edge")


def test_samples_of_the_same_name_with_other_bytes(project: Path) -> None:
    for name, factor in (("a", 1.0), ("b", 0.5)):
        # Apart from the code: what lies beside an entry point may be read by it.
        (project / name / "data").mkdir()
        arrays = read_arrays(ROOT / "examples" / "digits" / "samples.npz")
        write_arrays(project / name / "data" / "real.npz", {key: array * factor for key, array in arrays.items()})
        spec = project / name / "spec.yaml"
        spec.write_text(spec.read_text("utf-8").replace("examples/digits/samples.npz", "data/real.npz"), "utf-8")
    diff = compared(project)
    assert not diff.same
    assert said(diff) == {}
    assert set(said(diff, "files")) == {'samples."data/real.npz"'}
    # Another variant may win, which then starts for the first time; made is made.
    checked = {(target, stage) for target in ("cpu", "edge") for stage in ALL_OF_A_TARGET - {"variant"}}
    calibrated = {("edge", "calibrate"), ("edge", "variant")}
    assert anew(diff) == checked | calibrated | {(None, "reference"), (None, "shape matrix")}


def test_code_of_an_entry_point(project: Path) -> None:
    with (project / "b" / "examples" / "digits" / "accuracy.py").open("a") as stream:
        stream.write("\n# changed\n")
    diff = compared(project)
    assert set(said(diff, "files")) == {
        'code."examples.digits.accuracy:accuracy"',
        # The files of its directory are its own.
        'code."examples.digits.model:build"',
    }
    assert {(None, "metric"), (None, "export"), (None, "reference")} <= anew(diff)


def test_weights_that_are_not_the_declared_ones_leave_the_stages_unknown(project: Path) -> None:
    (project / "b" / "examples" / "digits" / "weights.safetensors").write_bytes(b"other")
    edit(project, "opset: 20", "opset: 18")
    diff = compared(project)
    assert said(diff) == {"export.opset": (20, 18)}
    assert diff.stages == ()
    assert "was refused" in str(diff.stages_unknown)


def test_a_spec_with_mistakes_is_refused_at_their_place(project: Path) -> None:
    edit(project, "opset: 20", "opset: 99")
    with pytest.raises(SpecError) as caught:
        compared(project)
    assert str(caught.value.diagnostics[0].span).startswith(f"{project}/b/spec.yaml:")


class Copies:
    """A repository whose only revision is a directory."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def checkout(self, _: str, tree: Path) -> None:
        """Copy the directory."""
        shutil.copytree(self.place, tree, dirs_exist_ok=True)


def test_a_revision_with_a_profile_in_a_former_spelling_is_compared(project: Path) -> None:
    for name in ("a", "b"):
        (project / name / "targets").mkdir()
        text = (ROOT / "targets" / "edge.yaml").read_text("utf-8")
        former, times = re.subn(
            r"quantization: {kind: static, (operators: \[[^]]*\])}", r"quantization: int8-static, \1", text
        )
        assert times == 1
        written = former if name == "a" else text
        (project / name / "targets" / "edge.yaml").write_text(written, "utf-8")
    before = SpecAt("old", Path("spec.yaml"), Copies(project / "a"), "HEAD~1", "0" * 40)  # type: ignore[arg-type]
    with ExitStack() as stack:
        sides = [load(side, stack) for side in (before, SpecAt("new", project / "b" / "spec.yaml"))]
        assert compare_specs(*sides).same
    # The revision itself is as it was; only its copy was rewritten.
    assert "quantization: int8-static" in (project / "a" / "targets" / "edge.yaml").read_text("utf-8")
