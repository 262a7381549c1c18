"""Run what takes longer than `make test` may: `python tests/proofs/prove.py [--only TEXT] [--list]`, or `make proofs`.

Proofs are programs (PROGRAMS below) and the tests that are marked `proof`. Each that ends is a line of
build/proofs/COMMIT.jsonl: a run that was killed goes on where it was when it is started again, and failures run again.
When nothing is left, tests/proofs/records/DATE.json says what ran, when, on which commit and with which counts; that
record, and the records that the programs renewed, are committed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from journal import FAILED, PASSED, Entry, append, counts, outstanding, read

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORDS = HERE / "records"
WORK = ROOT / "build" / "proofs"


@dataclass(frozen=True)
class Program:
    """A proof that is a program of its own; it succeeds with exit code 0."""

    name: str
    arguments: tuple[str, ...]
    writes: tuple[str, ...] = ()
    """The records that it renews, which are committed with the record of the run."""


PROGRAMS = (
    Program(
        "every architecture at opsets 20 and 17",
        ("tests/architectures/run.py",),
        ("tests/architectures/data", "docs/architectures.md"),
    ),
    Program("property tests with all examples", ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit")),
    Program(
        "ONNX's backend tests through init, check and import",
        ("tests/proofs/onnx_backend.py",),
        ("tests/proofs/onnx_backend.json",),
    ),
    Program("fuzz specs", ("tests/fuzz/run.py",), ("tests/fuzz/record.json",)),
    Program("fuzz files of every kind", ("tests/fuzz/fuzz_files.py",), ("tests/fuzz/record_files.json",)),
    Program("fuzz the server", ("tests/fuzz/fuzz_server.py",)),
)


def main() -> int:
    """Run what is outstanding; returns 1 where a proof failed."""
    parser = argparse.ArgumentParser(description="Proofs that take longer than `make test` may.")
    parser.add_argument("--only", default="", metavar="TEXT", help="proofs whose name holds this")
    parser.add_argument("--list", action="store_true", help="show what is outstanding, and run nothing")
    parser.add_argument("--record", action="store_true", help="record what ran although something is left")
    parser.add_argument("--no-commit", action="store_true", help="write the record without committing it")
    arguments = parser.parse_args()
    os.environ["ORTC_TESTS"] = "all"
    commit = git("rev-parse", "HEAD")
    journal = WORK / f"{commit}.jsonl"
    proofs = [*marked(), *(program.name for program in PROGRAMS)]
    chosen = [proof for proof in outstanding(proofs, read(journal)) if arguments.only in proof]
    say(f"{len(chosen)} of {len(proofs)} proofs are outstanding on {commit[:12]}")
    if arguments.list:
        sys.stdout.write("".join(f"{proof}\n" for proof in chosen))
        return 0
    if changed := changes():
        say(f"commit first, so that the record names what ran; these files differ from {commit[:12]}: {changed}")
        return 2
    run_tests([proof for proof in chosen if "::" in proof], journal)
    for program in PROGRAMS:
        if program.name in chosen:
            run_program(program, journal)
    done = {proof: entry for proof, entry in read(journal).items() if proof in proofs}
    left = outstanding(proofs, done)
    failed = [entry.proof for entry in done.values() if entry.outcome == FAILED]
    say(f"{counts(done.values())}; {len(left)} outstanding")
    if failed:
        say("failed:\n" + "".join(f"  {proof}\n" for proof in failed) + f"see {WORK}")
        return 1
    if not left or arguments.record:
        keep(record(commit, done, left), commits=not arguments.no_commit)
    return 0


def marked() -> list[str]:
    """The node ids of the tests that are marked `proof`."""
    command = [sys.executable, "-m", "pytest", "--proofs", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "-o", "addopts=--import-mode=importlib"], cwd=ROOT, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if "::" in line]
    if done.returncode or not found:
        sys.exit(f"the tests cannot be collected:\n{done.stdout}{done.stderr}")
    return found


def run_tests(tests: list[str], journal: Path) -> None:
    """Run tests in one process, which shares what they have built; each that ends is a line of the journal."""
    if tests:
        listed = journal.with_suffix(".tests")
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(tests) + "\n", "utf-8")
        command = [sys.executable, "-m", "pytest", "--proofs", "-p", "no:cacheprovider", f"@{listed}"]
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "ORTC_PROOFS_JOURNAL": str(journal)}
        subprocess.run([*command, "-p", "outcomes"], cwd=ROOT, env=environment, check=False)


def run_program(program: Program, journal: Path) -> None:
    """Run a program, and add to the journal what became of it."""
    say(f"{program.name} ...")
    began = time.monotonic()
    done = subprocess.run([sys.executable, *program.arguments], cwd=ROOT, check=False)
    outcome = FAILED if done.returncode else PASSED
    append(journal, Entry(program.name, outcome, round(time.monotonic() - began, 1), now()))


def record(commit: str, done: dict[str, Entry], left: list[str]) -> dict[str, Any]:
    """What is kept of a run."""
    dates = sorted(entry.date for entry in done.values())
    return {
        "format_version": 1,
        "commit": commit,
        "began": dates[0],
        "ended": dates[-1],
        "host": {"platform": f"{platform.system()}/{platform.machine()}".lower(), "cores": os.cpu_count()},
        "python": platform.python_version(),
        "counts": counts(done.values()),
        "outstanding": left,
        "proofs": {proof: {"outcome": done[proof].outcome, "seconds": done[proof].seconds} for proof in sorted(done)},
    }


def keep(document: dict[str, Any], *, commits: bool) -> None:
    """Write a record below the date of its end, and commit it with what the programs renewed."""
    date = document["ended"][:10]
    path = RECORDS / f"{date}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    say(f"recorded in {path.relative_to(ROOT)}")
    if commits:
        places = [
            str(path.relative_to(ROOT)),
            *(place for p in PROGRAMS for place in p.writes if (ROOT / place).exists()),
        ]
        git("add", "--", *places)
        git(
            "commit",
            "--quiet",
            "-m",
            f"Record the proofs of {date}",
            "-m",
            f"They ran on {document['commit']}.",
            "--",
            *places,
        )


def changes() -> str:
    """The files that differ from the commit, besides the records of the programs."""
    renewed = [f":(exclude){place}" for program in PROGRAMS for place in program.writes]
    return git("status", "--porcelain", "--untracked-files=all", "--", ".", *renewed)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607


def now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
