"""ONNX's backend tests through `ortc init`, `ortc check` and the import: `onnx_backend.py [--only TEXT]`.

Every model of the kinds node, simple, pytorch-converted and pytorch-operator is inspected, its spec is checked, and its
file is imported. What is imported answers the test's own inputs as the file does in ONNX Runtime; everything else is
refused with a message. A crash and a wrong number fail. tests/proofs/onnx_backend.json keeps the counts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from ortc.common.errors import StageError
from ortc.frontend.import_onnx import import_onnx
from ortc.inspection.draft_spec import render
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.plan.checks import check_spec
from ortc.plan.resolve import resolve
from ortc.spec.diagnostics.errors import SpecError

HERE = Path(__file__).parent
RECORD = HERE / "onnx_backend.json"
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
EQUAL, REFUSED, NOT_RUN, WRONG, CRASH = "equal", "refused", "not run by ONNX Runtime", "wrong", "crash"
OUTCOMES = (EQUAL, REFUSED, NOT_RUN, WRONG, CRASH)
MAX_OPSET = 23
SHOWN = 200
PLACE = re.compile(r"/\S*\.onnx")
"""A path of this machine, which no record has."""


@dataclass(frozen=True)
class Case:
    """A test: a model, and the inputs of its first data set in the order of the graph's."""

    kind: str
    name: str
    model: onnx.ModelProto
    inputs: list[Any]


@dataclass
class Found:
    """Outcomes by kind, reasons of refusals and of files that ONNX Runtime does not run, and what went wrong."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})
    reasons: dict[str, Counter[str]] = field(default_factory=lambda: {REFUSED: Counter(), NOT_RUN: Counter()})
    failures: list[str] = field(default_factory=list)


def main() -> int:
    """Run all tests; returns 1 where one crashed or gave a wrong number."""
    parser = argparse.ArgumentParser(description="ONNX's backend tests through init, check and import.")
    parser.add_argument("--only", default="", metavar="TEXT", help="tests whose name holds this; nothing is recorded")
    only = parser.parse_args().only
    ort.set_default_logger_severity(4)
    warnings.simplefilter("ignore")
    found = Found()
    with tempfile.TemporaryDirectory(prefix="ortc-backend-") as scratch:
        os.chdir(scratch)
        Path("pyproject.toml").touch()
        for case in cases():
            if only in case.name:
                outcome, said = tried(case, Path(scratch))
                found.counts[case.kind][outcome] += 1
                if outcome in found.reasons:
                    found.reasons[outcome][said] += 1
                if outcome in (WRONG, CRASH):
                    found.failures.append(f"{case.kind} {case.name}: {outcome}: {said}")
    sys.stdout.write(table(found))
    if not only:
        RECORD.write_text(json.dumps(record(found), indent=1) + "\n", "utf-8")
    return 1 if found.failures else 0


def cases() -> Iterator[Case]:
    """The tests of all kinds."""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    for case in collect_testcases(None):
        assert case.model is not None
        yield Case("node", case.name, case.model, list(case.data_sets[0][0]) if case.data_sets else [])
    for kind in KINDS[1:]:
        for case in load_model_tests(kind=kind):
            place = Path(str(case.model_dir))
            yield Case(kind, case.name, onnx.load(place / "model.onnx"), list(arrays(place / "test_data_set_0")))


def arrays(place: Path) -> Iterator[Any]:
    """The arrays of a data set's input files, in their order."""
    for index in range(len(list(place.glob("input_*.pb")))):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((place / f"input_{index}.pb").read_bytes())
        yield onnx.numpy_helper.to_array(tensor)


def tried(case: Case, root: Path) -> tuple[str, str]:
    """What became of a test, and why."""
    path = root / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        return imported(case, path, root)
    except InspectionError as error:
        return REFUSED, f"init: {reason(str(error))}"
    except SpecError as error:
        return REFUSED, f"check: {error.diagnostics[0].rule.code}"
    except StageError as error:
        return REFUSED, f"import: {reason(error.message)}"
    except Exception:  # noqa: BLE001 - a crash is what this looks for
        return CRASH, traceback.format_exc()[-800:]


def imported(case: Case, path: Path, root: Path) -> tuple[str, str]:
    """Import a model and compare it with its file.

    Raises:
        InspectionError, SpecError, StageError: it is refused.
    """
    spec = root / "case.yaml"
    spec.write_text(render(inspect(str(path), root, max_opset=MAX_OPSET), ("cpu",), "spec.schema.json"), "utf-8")
    checked = check_spec(spec)
    with tempfile.TemporaryDirectory() as output:
        exported = import_onnx(path, resolve(checked.loaded.spec, checked.profiles).export, Path(output))
        names = [tensor.name for tensor in exported.outputs]
        stored = {tensor.name for tensor in case.model.graph.initializer}
        given = [value.name for value in case.model.graph.input if value.name not in stored]
        inputs = dict(zip(given, case.inputs, strict=False))
        try:
            file = session(path)
            expected = file.run(names, {value.name: inputs[value.name] for value in file.get_inputs()})
        except Exception as error:  # noqa: BLE001 - ONNX Runtime has no common base of its errors
            return NOT_RUN, reason(str(error))
        graph = session(Path(output) / "model.onnx")
        answers = graph.run(names, {value.name: inputs[value.name] for value in graph.get_inputs()})
    for name, wanted, answer in zip(names, expected, answers, strict=True):
        if (problem := difference(wanted, answer)) is not None:
            return WRONG, f"{name}: {problem}"
    return EQUAL, ""


def session(path: Path) -> ort.InferenceSession:
    """A session without any optimization: what the graph says, as it says it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def difference(expected: Any, found: Any) -> str | None:
    """How two outputs differ; None where they are equal up to rounding."""
    left, right = np.asarray(expected), np.asarray(found)
    if left.dtype.kind in "OUS":
        return None  # names of classes, which the bundle has as numbers
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{left.dtype} {left.shape} became {right.dtype} {right.shape}"
    if left.dtype.kind != "f":
        return None if np.array_equal(left, right) else "other values"
    close = np.allclose(left.astype("f8"), right.astype("f8"), rtol=1e-5, atol=1e-6, equal_nan=True)
    return None if close else f"greatest difference {np.nanmax(np.abs(left.astype('f8') - right.astype('f8'))):g}"


def reason(message: str) -> str:
    """A message without the names of one model, so that equal refusals count together."""
    plain = PLACE.sub("the file", message.splitlines()[0]) if message else "no message"
    parts = plain.split("`")
    return "`…`".join(parts[::2])[:SHOWN]


def record(found: Found) -> dict[str, Any]:
    """What is kept: versions, counts by kind, and what was not compared by its reason."""
    return {
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
        "counts": {kind: {outcome: counts[outcome] for outcome in OUTCOMES} for kind, counts in found.counts.items()},
        "reasons": {outcome: dict(reasons.most_common()) for outcome, reasons in found.reasons.items()},
        "failures": found.failures,
    }


def table(found: Found) -> str:
    """The counts as a table, and what went wrong."""
    lines = [f"{'':18}" + "".join(f"{outcome:>25}" for outcome in OUTCOMES)]
    for kind, counts in found.counts.items():
        lines.append(f"{kind:18}" + "".join(f"{counts[outcome]:>25}" for outcome in OUTCOMES))
    return "\n".join([*lines, *found.failures, ""])


if __name__ == "__main__":
    sys.exit(main())
