"""What the reference answers: PyTorch, or an ONNX file as it was fetched, at every case that is compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ortc.build.context import Context
from ortc.build.original import run_original, serve_original
from ortc.build.plain_runtime import CHECK_PINS
from ortc.build.stage_results import AnsweredCase, References
from ortc.common.arrays import Array, read_arrays, read_shapes, write_arrays
from ortc.execution.worker import Worker
from ortc.frontend.samples.masking import Answered, excluding_outputs, is_whole, telling_outputs, whole
from ortc.passes.canonical import Exported
from ortc.plan.masks import mask_of
from ortc.plan.plan import InputPlan


@contextmanager
def answering(context: Context, exported: Exported) -> Iterator[Worker]:
    """The reference of a build as a worker: the process that has PyTorch's model, or one that has the ONNX file.

    Raises:
        StageError: it cannot be loaded.
    """
    if context.has_reference:
        yield context.reference.worker()
        return
    with serve_original(context, exported, CHECK_PINS) as worker:
        yield worker


class Request(NamedTuple):
    """Inputs of a case; see `ReferenceCase` for the rest."""

    name: str
    inputs: dict[str, Array]
    is_sample: bool = False
    is_padded: bool = False


class Asking:
    """The requests that a reference has answered, with their files in a directory.

    Args:
        worker: has the reference loaded.
        output: the directory.
        by_file: the reference is an ONNX file.
    """

    def __init__(self, worker: Worker, output: Path, *, by_file: bool) -> None:
        self.worker = worker
        self.output = output
        self.by_file = by_file
        self.requests: list[Request] = []

    def answers(self, requests: Iterable[Request], tensors: Sequence[InputPlan], *, is_declared: bool) -> References:
        """Have requests answered, and one without masked positions where all have some that are excluded.

        Args:
            requests: inputs by name.
            tensors: the model's inputs.
            is_declared: the architecture defines the attention mask.
        """
        answered = [self._ask(request) for request in requests]
        mask = mask_of(tensors)
        excluding = excluding_outputs(tensors, answered, self.worker.run, is_declared=is_declared)
        if mask is not None and excluding and not any(is_whole(case.inputs, mask) for case in answered):
            # No answer may be left out at every case.
            some = self.requests[len(answered) // 2]
            self._ask(Request(f"{some.name}, nothing masked", whole(some.inputs, mask)))
        return References(cases=tuple(self._cases(excluding, mask)), excluding=excluding)

    def _ask(self, request: Request) -> Answered:
        given, answers = self._files(len(self.requests))
        self.requests.append(request)
        write_arrays(given, request.inputs)
        if self.by_file:
            run_original(self.worker, request.name, given, answers)
        else:
            self.worker.call("run", inputs=str(given), outputs=str(answers))
        return Answered(request.inputs, read_shapes(answers))

    def _cases(self, excluding: tuple[str, ...], mask: InputPlan | None) -> Iterable[AnsweredCase]:
        for index, request in enumerate(self.requests):
            given, answers = self._files(index)
            yield AnsweredCase(
                name=request.name,
                is_sample=request.is_sample,
                is_padded=request.is_padded,
                input_shapes=read_shapes(given),
                output_shapes=read_shapes(answers),
                is_whole=not excluding or is_whole(request.inputs, mask),
                telling=telling_outputs(request.inputs, read_arrays(answers), excluding, mask),
            )

    def _files(self, index: int) -> tuple[Path, Path]:
        return self.output / f"{index}.inputs.npz", self.output / f"{index}.outputs.npz"
