"""Errors that point into the files that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ortc.common.errors import OrtcError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ortc.spec.diagnostics.diagnostic import Diagnostic
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ortc.spec.diagnostics.diagnostic import Diagnostic


class DiagnosticError(OrtcError):
    """An error that points into the files it is about."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        if not self.diagnostics:
            raise ValueError("an error needs at least one diagnostic")
        more = len(self.diagnostics) - 1
        first = self.diagnostics[0].message
        super().__init__(first if not more else f"{first} (and {more} more)")


class SpecError(DiagnosticError):
    """The spec, or a file it names, cannot be compiled."""

    exit_code = 3
