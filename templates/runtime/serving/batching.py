"""Which requests run together: those of equal shapes, and texts of any lengths within a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from loading.errors import UsageError
from loading.model import Model


class Sized(Protocol):
    """A request with as many rows, each as wide."""

    rows: int
    width: int


J = TypeVar("J", bound=Sized)


@dataclass(frozen=True)
class Batching:
    """Requests that run together; the first of them is held back `delay` seconds.

    Those of the same shapes have at most `rows` rows together. Texts of any lengths have at most `tokens` tokens, with
    their padding to the longest, and as many rows as the model was verified with; 0 is no such runs.
    """

    rows: int
    delay: float
    tokens: int = 0
    most_rows: int = 0

    @classmethod
    def of(cls, model: Model, rows: int, delay: float, tokens: int = 0) -> Batching | None:
        """How the model may batch; None for rows of 1 without tokens.

        Raises:
            UsageError: The answers of the model depend on the neighbours in a batch, or it has no axis for them.
        """
        if rows <= 1 and not tokens:
            return None
        title = f"{model.name} {model.version} ({model.manifest['variant']['name']})"
        if model.manifest["variant"].get("batch_invariant") is not True:
            raise UsageError(
                f"{title} must not be batched: its manifest does not record that an answer is the same whatever "
                "stands beside it in a batch. Leave --max-batch-size and --max-batch-tokens out, or build with "
                "`batch_invariance: require`."
            )
        first = {tensor.shape[0] if tensor.shape else None for tensor in (*model.inputs, *model.outputs)}
        axis = next((a for a in model.axes if {a.name} == first), None)
        if axis is None:
            raise UsageError(f"{title} cannot be batched: its inputs and outputs do not share a dynamic first axis.")
        if rows > axis.max:
            raise UsageError(f"--max-batch-size is {rows}; {title} was verified up to {axis.name} {axis.max}.")
        return cls(rows, delay, tokens, axis.max)


def nearest(first: J, others: Sequence[J], batching: Batching) -> tuple[list[J], bool]:
    """The first request with those of the nearest lengths, and whether no other could be added to them.

    The first one runs in any case: no other runs before it, and little is padded.
    """
    jobs, rows, width = [first], first.rows, first.width
    for job in sorted(others, key=lambda job: abs(job.width - first.width)):
        longest = max(width, job.width)
        if rows + job.rows <= batching.most_rows and (rows + job.rows) * longest <= batching.tokens:
            jobs.append(job)
            rows, width = rows + job.rows, longest
    full = len(jobs) <= len(others) or rows >= batching.most_rows or (rows + 1) * width > batching.tokens
    return jobs, full
