"""Tell a TorchScript archive, which torch.jit.save writes, from a state dict, whatever the file is called."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ortc.common.plain_files import open_plain
from ortc.inspection.pt2_archive import ARCHIVE_ERRORS

TORCHSCRIPT_HELP = (
    "it holds a module whole: write a function that returns `torch.jit.load(path)`, name that in `entrypoint`, and set "
    "`weights: entrypoint`"
)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive; nothing in it is read or run. False for what cannot be opened."""
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, *ARCHIVE_ERRORS):
        return False
    # Both lie in a directory that is called after the file. A state dict has neither.
    members = {name.partition("/")[2] for name in names}
    return "constants.pkl" in members and any(member.startswith("code/") for member in members)
