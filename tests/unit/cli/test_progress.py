"""What a terminal shows of steps that end, and of those that do not."""

from __future__ import annotations

import signal

import pytest

from ortc.build.progress import Step
from ortc.cli.progress import ConsoleProgress
from ortc.cli.signals import Ended


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ValueError("no"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (Ended(signal.SIGTERM), "interrupted"),
        (None, "2.0 s"),
    ],
)
def test_a_signal_is_no_failure_of_the_step(
    raised: BaseException | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, step = ConsoleProgress("spec.yaml"), Step("export", "dynamo")
    progress.started(step)
    try:
        if raised is not None:
            raise raised
    except (ValueError, KeyboardInterrupt, Ended):
        progress.ended(step, 2.0)
    else:
        progress.ended(step, 2.0)
    progress.close()
    assert capsys.readouterr().err.split()[-1 if raised else -2 :] == said.split()
