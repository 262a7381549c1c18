"""What a terminal shows while a build runs, and what logs get instead."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.plans import plan

from ortc.cli.expected_steps import ExpectedSteps, last_steps
from ortc.cli.live_progress import LiveProgress, progress_of_build
from ortc.cli.progress import ConsoleProgress
from ortc.common.errors import StageError

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STAGES = [
    {"stage": "export", "subject": "dynamo", "seconds": 5.0, "cached": False},
    {"stage": "variant", "subject": "cpu: fp32", "seconds": 90.0, "cached": False},
    {"stage": "measure", "subject": "cpu: fp32", "seconds": 0.0, "cached": True},
]


def report(directory: Path, document: object) -> Path:
    directory.mkdir()
    (directory / "1.0.0.report.json").write_text(json.dumps(document), "utf-8")
    return directory


def test_the_last_build_says_what_is_left(tmp_path: Path) -> None:
    expected = last_steps(report(tmp_path / "tiny", {"stages": STAGES}), ("cpu", "edge"))
    assert expected.left("cpu", {}) == 90.0
    # A step that came from the cache takes as long as the others did.
    assert expected.left("cpu", {("variant", "cpu: fp32"): 40.0}) == 40.0
    assert expected.left("cpu", {("variant", "cpu: fp32"): None, ("measure", "cpu: fp32"): None}) == 0.0
    assert expected.left(None, {}) == 5.0
    assert expected.left("edge", {}) is None


@pytest.mark.parametrize(
    "document", [None, [], {"stages": 3}, {"stages": [None, {}, {"stage": 1, "subject": [], "seconds": "x"}]}]
)
def test_a_report_that_cannot_be_read_gives_no_estimate(document: object, tmp_path: Path) -> None:
    assert last_steps(report(tmp_path / "tiny", document), ("cpu",)).left("cpu", {}) is None
    assert last_steps(tmp_path / "nothing", ("cpu",)).left("cpu", {}) is None


def live(width: int = 80) -> tuple[LiveProgress, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, highlight=False)
    seconds = {"cpu": {("variant", "cpu: fp32"): 90.0, ("verify", "cpu: fp32"): 30.0}}
    return LiveProgress(console, "specs/tiny.yaml", ExpectedSteps(("cpu", "server-gpu"), seconds)), stream


def lines(stream: io.StringIO) -> list[str]:
    return [CONTROL.sub("", line).rstrip() for line in re.split(r"[\r\n]+", stream.getvalue())]


def test_a_line_names_the_step_under_way_and_what_is_left() -> None:
    progress, stream = live()
    with progress.step("export", "dynamo"):
        assert progress.line().plain == "  model       0:00  step 1  export dynamo"
    with progress.part("cpu"):
        with progress.step("variant", "cpu: fp32"):
            left = "about 2:00 left"
            assert progress.line().plain == f"  cpu         0:00  target 1 of 2  step 1 of 2  {left}  variant fp32"
        with progress.step("verify", "cpu: fp32") as step:
            assert "step 2 of 2  about 0:30 left" in progress.line().plain
            step.cached = True
    progress.close()
    shown = lines(stream)
    assert shown[0] == "specs/tiny.yaml"
    assert "  model       done in 0:00  1 step" in shown
    assert "  cpu         done in 0:00  2 steps" in shown


def test_a_target_that_fails_is_not_done() -> None:
    progress, stream = live()
    with pytest.raises(StageError), progress.part("server-gpu"):
        raise StageError("no")
    progress.close()
    assert "  server-gpu  failed in 0:00  0 steps" in lines(stream)


def test_an_interrupted_build_says_that_it_continues() -> None:
    progress, stream = live()
    with pytest.raises(KeyboardInterrupt), progress.part("cpu"):
        raise KeyboardInterrupt
    progress.close()
    shown = lines(stream)
    assert "  cpu         interrupted in 0:00  0 steps" in shown
    assert "  finished steps are kept: the same command continues after them" in shown


def test_the_line_never_breaks() -> None:
    progress, stream = live(width=30)
    with progress.step("export", "东京" * 40):
        progress.close()
    assert max(map(len, lines(stream))) < 30
    assert any(line.endswith("…") for line in lines(stream))


def test_logs_get_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = progress_of_build("spec.yaml", plan(Path("specs/digits.yaml")), tmp_path, is_verbose=False)
    assert isinstance(progress, ConsoleProgress)
    with progress.part("cpu"), progress.step("export", "dynamo"):
        pass
    progress.close()
    assert "\x1b" not in capsys.readouterr().err
