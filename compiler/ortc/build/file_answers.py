"""Answers to files, images or sounds: which fit the model, and which travel with a bundle."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ortc.common.arrays import Array, read_arrays
from ortc.common.errors import StageError
from ortc.evaluation.agreement import certainty, gate_of_kind
from ortc.execution.worker import Worker
from ortc.plan.plan import AxisPlan
from ortc.plan.processing import AnswerForm

GOLDEN_ANSWERS = 3
MOST_GOLDEN_BYTES = 2**16
GOLDEN_VALUES = 997
"""About as many values of a golden file are recorded."""
Rows = Sequence[dict[str, Any]]
"""Files with their `name`, their `path`, and of samples the `answer`."""


def fitting(
    worker: Worker,
    operation: str,
    scratch: Path,
    rows: Rows,
    samples: int,
    shape: Sequence[str | int],
    axes: Sequence[AxisPlan],
    help_: str,
) -> tuple[list[int], dict[int, Array]]:
    """Places of the files that become arrays which the model takes, and these arrays.

    Args:
        worker: the process of the model.
        operation: its operation that writes the arrays.
        scratch: the file that they are written to.
        rows: the files; the first `samples` are samples, of which each has to become an array.
        samples: how many samples there are.
        shape: of the model's input, whose first axis is of files.
        axes: the declared axes.
        help_: what to do where a sample becomes nothing.

    Raises:
        StageError: the model's own code fails on a sample.
    """
    refused = worker.call(operation, files=[str(row["path"]) for row in rows], outputs=str(scratch))["refused"]
    for place, reason in refused.items():
        if int(place) < samples:
            name = rows[int(place)]["name"]
            raise StageError(f"the model's own processor fails on `{name}`: {reason}", help=help_)
    arrays = {int(place): array for place, array in read_arrays(scratch).items()}
    bounds = {axis.name: axis for axis in axes}

    def fits(size: int, entry: str | int) -> bool:
        if isinstance(entry, int):
            return size == entry
        axis = bounds[entry]
        return axis.min <= size <= axis.max and size % axis.multiple_of == 0

    kept = [
        place
        for place, array in arrays.items()
        if array.ndim == len(shape) - 1
        and all(fits(size, entry) for size, entry in zip(array.shape, shape[1:], strict=True))
    ]
    return kept, arrays


def golden_files(
    rows: Rows, form: AnswerForm, file: Path, fields: tuple[str, str], odd: Sequence[str]
) -> list[dict[str, Any]]:
    """Files that travel with a bundle: a few samples with answers, and odd ones with their arrays alone.

    Where answers agree or not, the surest are taken: an answer near another one may change at reduced precision.

    Args:
        rows: the files.
        form: how the bundle answers.
        file: what the files become, by their places.
        fields: the names of a file and of its array in a golden case.
        odd: names of odd files that travel.
    """
    arrays = read_arrays(file)
    small = [
        index
        for index, row in enumerate(rows)
        if "answer" in row and Path(row["path"]).stat().st_size <= MOST_GOLDEN_BYTES
    ]
    if gate_of_kind(form.kind) is not None:
        small.sort(key=lambda index: -certainty(form.kind, rows[index]["answer"]))
    strange = [index for index, row in enumerate(rows) if row["name"] in odd]
    return [
        {
            "name": rows[index]["name"],
            fields[0]: base64.b64encode(Path(rows[index]["path"]).read_bytes()).decode("ascii"),
            fields[1]: _recorded(arrays[str(index)]),
            "answer": rows[index].get("answer"),
        }
        for index in (*small[:GOLDEN_ANSWERS], *strange)
    ]


def _recorded(values: Array) -> dict[str, Any]:
    """Every so many values, by an odd step, so that all rows and columns have some."""
    step = max(1, values.size // GOLDEN_VALUES) | 1
    chosen = np.asarray(values, np.float32).ravel()[::step]
    return {"shape": list(values.shape), "step": step, "values": [float(value) for value in chosen]}
