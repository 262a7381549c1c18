"""What became of each proof, a line each: a run that is killed loses only the proof that it was at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"


@dataclass(frozen=True)
class Entry:
    """What became of a proof."""

    proof: str
    """The node id of a test, or the name of a program."""
    outcome: str
    """`passed`, `failed` or `skipped`."""
    seconds: float
    """Wall time."""
    date: str
    """When it ended, in UTC."""


def append(journal: Path, entry: Entry) -> None:
    """Add a line to a journal."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    # A line that a kill cut off stays a line of its own.
    begun = journal.exists() and not journal.read_bytes().endswith(b"\n") and journal.stat().st_size > 0
    with journal.open("a", encoding="utf-8") as stream:
        stream.write(("\n" if begun else "") + json.dumps(asdict(entry)) + "\n")


def read(journal: Path) -> dict[str, Entry]:
    """The last entry of each proof; lines that a kill cut off are left out."""
    found: dict[str, Entry] = {}
    for line in journal.read_text("utf-8").splitlines() if journal.exists() else ():
        try:
            entry = Entry(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[entry.proof] = entry
    return found


def outstanding(proofs: Iterable[str], done: dict[str, Entry]) -> list[str]:
    """The proofs that did not end yet, or failed, in their order."""
    return [proof for proof in proofs if proof not in done or done[proof].outcome == FAILED]


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    """How many proofs ended in each way."""
    return dict(sorted(Counter(entry.outcome for entry in entries).items()))
