"""Errors that a user meets, each with the exit code of the command that raised it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    pass


class OrtcError(Exception):
    """What went wrong, for a user; without a traceback.

    Args:
        message: One line: what is wrong, with the value and the place.
        help: What to do about it.
        details: Evidence, one line each.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, help: str | None = None, details: tuple[str, ...] = ()) -> None:  # noqa: A002
        super().__init__(message)
        self.message = message
        self.help = help
        self.details = details

    def __str__(self) -> str:
        return self.message


class UsageError(OrtcError):
    """An argument of the command line that names nothing, or not what the command is for."""

    exit_code = 2


class StageError(OrtcError):
    """A stage of the build could not do its work."""

    exit_code = 4


class NotApplicable(StageError):  # noqa: N818  # not an error of anybody: the model has nothing of the kind
    """There is nothing in this model for a variant to change."""


class AccuracyError(OrtcError):
    """What would ship does not compute what PyTorch computes."""

    exit_code = 5


class BudgetError(OrtcError):
    """What would ship is right, and too slow, too large or too hungry."""

    exit_code = 6


class UnmeasuredError(OrtcError):
    """A promise could not be measured here, and the spec does not allow that."""

    exit_code = 7
