"""The check of an imported graph: against the ONNX file, or against the PyTorch model that the file was made from."""

from __future__ import annotations

from ortc.common.errors import AccuracyError, StageError
from ortc.evaluation.accuracy_gates import accuracy_verdicts
from ortc.evaluation.report import Check, Verdict
from ortc.passes.canonical import Exported
from ortc.passes.quantized_operators import quantized_already
from ortc.plan.plan import Plan
from ortc.spec.model_sources import reference_of

IMPORT_GATES = ("max_abs", "outputs")
"""Gates of a graph without any optimization."""


def judge_import(plan: Plan, exported: Exported, check: Check, platform: str) -> None:
    """Refuse the graph of an ONNX source whose answers are not those of its reference.

    Args:
        plan: of the build.
        exported: the imported graph.
        check: the graph over the shape matrix, without any optimization.
        platform: where it ran.

    Raises:
        StageError: the graph does not run at some shape.
        AccuracyError: it runs, and computes something else.
    """
    made_from = reference_of(plan.model)
    if check.error is not None and made_from is not None:
        raise StageError(
            f"the ONNX file does not run where the PyTorch model that it was made from does: {check.error}",
            help="the file computes fewer sizes than `export.dynamic_axes` promises: change the bounds, or export "
            "it again",
        )
    if check.error is not None:
        raise StageError(f"the imported graph does not run where the ONNX file does: {check.error}")
    # A file of integers is as far from the model that it was made from as its precision is.
    is_quantized = made_from is not None and quantized_already(exported.operators) is not None
    for verdict in accuracy_verdicts(check, "int8" if is_quantized else "fp32", plan.accuracy, platform, None):
        if verdict.outcome != "pass" and (is_quantized or verdict.gate in IMPORT_GATES):
            raise _import_error(exported, verdict) if made_from is None else _reference_error(verdict)


def _import_error(exported: Exported, verdict: Verdict) -> AccuracyError:
    """Why the canonical graph of an ONNX source may not ship: its answers are not those of the file."""
    found = f"{verdict.gate} {verdict.observed}, allowed {verdict.limit}, {verdict.where}"
    conversion = exported.conversion
    if conversion is None:
        return AccuracyError(
            f"the imported graph differs from the ONNX file: {found}",
            help="raise `accuracy.max_abs` if that much is acceptable: this is fp32 without any optimization; a file "
            "that draws random numbers cannot be compared",
        )
    touched = ", ".join(conversion.operators) or "none by its version"
    return AccuracyError(
        f"the conversion from opset {conversion.source} to {conversion.target} changed the answers of the ONNX file: "
        f"{found}; operators that it touched: {touched}",
        help=f"leave out `export.opset`, which keeps the file's own, {conversion.source}"
        if conversion.keeps
        else f"ortc ships no opset below {conversion.target}: export the model again at opset {conversion.target} or "
        "higher",
    )


def _reference_error(verdict: Verdict) -> AccuracyError:
    """Why an ONNX file may not ship that does not answer as the model that it was made from."""
    return AccuracyError(
        f"the ONNX file differs from the PyTorch model that it was made from (`model.reference`): {verdict.gate} "
        f"{verdict.observed}, must be {verdict.limit}, {verdict.where}",
        help="export the file again, from this code and these weights; or change the limit in `accuracy`, if that much "
        "is acceptable",
    )
