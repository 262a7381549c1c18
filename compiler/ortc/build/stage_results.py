"""What the stages of a build give, besides the values that evaluation and passes define themselves."""

from __future__ import annotations

from pydantic import Field

from ortc.common.errors import StageError
from ortc.common.values import Frozen
from ortc.execution.files_opened import Opened
from ortc.passes.canonical import Exported
from ortc.plan.processing import Processing


class Skip(Frozen):
    """Why there is no result: nothing of the kind applies."""

    skip: str


class Failure(Frozen):
    """A failure that the same inputs would repeat."""

    message: str
    help: str | None
    details: tuple[str, ...]

    @classmethod
    def of(cls, error: StageError) -> Failure:
        """The same as a value that can be kept."""
        return cls(message=error.message, help=error.help, details=tuple(error.details))


class ExportDone(Frozen):
    """The canonical graph lies in the action's files."""

    exported: Exported


class ExportFailed(Frozen):
    """An exporter could not do it; another may."""

    error: Failure


class AnsweredCase(Frozen):
    """A case that the reference has answered; shapes of its inputs and outputs by name.

    `is_whole`, `telling`: see `ortc.evaluation.accuracy.ReferenceCase`.
    """

    name: str
    is_sample: bool = False
    is_padded: bool = False
    input_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    output_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    is_whole: bool = True
    telling: tuple[str, ...] | None = None


class References(Frozen):
    """The cases that the reference has answered; arrays lie in files named by their index.

    `excluding` names the outputs at which a mask of 0 means padding.
    """

    cases: tuple[AnsweredCase, ...]
    excluding: tuple[str, ...] = ()


class TeacherAnswers(Frozen):
    """Names of the cases that the teacher has answered; arrays lie in files named by the case's index."""

    cases: tuple[str, ...]


class MetricOfReference(Frozen):
    """A task metric's value for the reference, and what its function has read."""

    value: float
    opened: Opened
    asked: tuple[str, ...] = ()
    """Digests of the inputs that the function asked about, in order; the files of the action hold the answers."""


class MetricOfTeacher(Frozen):
    """A task metric's value for the teacher."""

    value: float


class Texts(Frozen):
    """What texts become; token ids, answers and the tokenizer lie in files."""

    processing: Processing


class Proven(Frozen):
    """The exported graph answers texts as PyTorch does."""


class Ranges(Frozen):
    """How many requests the ranges of activations rest on; the ranges lie in a file."""

    samples: int


class BuiltModule(Frozen):
    """Digests of all parts of the module that an entry point builds, and what it has read."""

    parts: dict[str, str]
    opened: Opened
    opaque: tuple[str, ...] = ()


class SamplesRead(Frozen):
    """What a function that gives samples has read, and the digest of what it gave."""

    opened: Opened
    sha256: str = ""


class Sums(Frozen):
    """The digest of a bundle's SHA256SUMS."""

    sums: str
