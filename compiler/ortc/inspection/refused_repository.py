"""Repositories that no build takes, refused before a spec of them is written."""

from __future__ import annotations

from pathlib import Path

from ortc.common.texts import shown
from ortc.inspection.findings import InspectionError
from ortc.inspection.model_files import CODE_HELP
from ortc.inspection.quantized_checkpoint import HELP, quantization_of
from ortc.inspection.repository import code, of_directories


def refuse_repository(directory: Path) -> None:
    """Stop before a spec of the stock architecture, or of weights that cannot be read, is written.

    Raises:
        InspectionError: the repository brings code of its own, or its weights are quantized already.
    """
    repository = of_directories((directory,))
    if found := code(repository, repository.names):
        raise InspectionError(f"`{directory}` brings code of its own ({found[0]}): {CODE_HELP}")
    if (method := quantization_of(repository)) is not None:
        raise InspectionError(f"the weights of `{directory}` are quantized already, with {shown(method)}; {HELP}")
