"""The commands that pages of documentation tell readers to run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support.builds import ROOT


def commands(page: str | Path) -> list[str]:
    """Every command in the fenced `sh` blocks of a page, in order, those joined by && apart; without comments."""
    text = (ROOT / page).read_text("utf-8")
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            found += [part.strip() for part in re.sub(r"(^|\s)#.*", "", line).split(" && ")]
    return [command for command in found if command]


def options(page: str | Path, start: str, *, having: str = "") -> list[str]:
    """The options of the first command that begins so and holds `having`, with their values; not its image or place."""
    command = next(entry for entry in commands(page) if entry.startswith(f"{start} ") and having in entry)
    words = shlex.split(command.removeprefix(start))
    return [word for index, word in enumerate(words) if word.startswith("--") or words[index - 1].startswith("--")]
