"""The golden cases of a bundle: run, and compared with the answers that were recorded at build time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .arrays import Arrays, read_npz
from .errors import BundleError, FormatError, GoldenError
from .files import inside, parsing
from .golden import compare
from .numerics import NanWatch, has_nan


@dataclass(frozen=True)
class Case:
    """A golden case: its files, how far an answer may be off, and the input that masks some outputs (None: all).

    `is_padding`: the mask is not 0 at padding, and else it is 0 there.
    """

    name: str
    tolerance: Mapping[str, Any]
    mask: str | None
    masked: Sequence[str] | None
    is_padding: bool
    inputs: Path
    outputs: Path

    def mask_of(self, output: str, inputs: Arrays) -> NDArray[Any] | None:
        """The mask whose zeros exclude positions of an output; None where every value is compared."""
        if not self.mask or (self.masked is not None and output not in self.masked):
            return None
        return inputs[self.mask] == 0 if self.is_padding else inputs[self.mask]


def cases_of(root: Path, manifest: Mapping[str, Any]) -> list[Case]:
    """The golden cases that manifest.json lists; FormatError where it is malformed."""
    with parsing(root / "manifest.json"):
        return [
            Case(
                str(c["name"]),
                c["tolerance"],
                c["mask"],
                c.get("masked_outputs"),
                c.get("mask_is_padding") is True,
                *_files(root, c),
            )
            for c in manifest["golden"]
        ]


def _files(root: Path, case: Mapping[str, Any]) -> tuple[Path, Path]:
    return inside(root, case["inputs"]), inside(root, case["outputs"])


def first_inputs(root: Path, manifest: Mapping[str, Any]) -> Arrays:
    """The inputs of the first golden case; none where there is no case."""
    with parsing(root / "manifest.json"):
        files = [inside(root, case["inputs"]) for case in manifest["golden"][:1]]
    return read_npz(files[0], FormatError) if files else {}


def run_case(
    case: Case, outputs: Sequence[str], run: Callable[[Arrays], Arrays], nan: NanWatch, runtime_version: str
) -> dict[str, Any]:
    """Run a golden case, and add the names of its arrays that hold NaN to `nan`.

    Args:
        case: What to run.
        outputs: All outputs of the model.
        run: Gives the answer to inputs.
        nan: Learns what may hold NaN.
        runtime_version: The version of ONNX Runtime, for the message.

    Returns:
        Its name and tolerance, and `max_abs` and `cosine` of all outputs and of each.

    Raises:
        GoldenError: An answer differs by more than the tolerance, or there is none.
        FormatError: The files do not hold arrays of the model's outputs.
    """
    inputs, expected = read_npz(case.inputs, FormatError), read_npz(case.outputs, FormatError)
    nan.known.update(name for name, array in {**inputs, **expected}.items() if has_nan(array))
    if sorted(expected) != sorted(outputs):
        raise FormatError(f"{case.outputs} holds {sorted(expected)}, expected every output of the model.")
    try:
        observed = run(inputs)
    except BundleError as error:
        raise GoldenError(f"golden case {case.name!r} could not be run: {error}") from error
    seen: dict[str, dict[str, float]] = {}
    for output, array in observed.items():
        with parsing(case.inputs.parent.parent / "manifest.json"):
            limits = {**case.tolerance, **(case.tolerance.get("outputs") or {}).get(output, {})}
            seen[output], problem = compare(expected[output], array, limits, case.mask_of(output, inputs))
        if problem:
            raise GoldenError(
                f"golden case {case.name!r}, output {output!r}: {problem}. On this machine the bundle does not compute "
                f"what PyTorch computed; do not serve it (onnxruntime {runtime_version})."
            )
    overall = {"max_abs": max(s["max_abs"] for s in seen.values()), "cosine": min(s["cosine"] for s in seen.values())}
    return {"name": case.name, "tolerance": dict(case.tolerance), **overall, "outputs": seen}
