"""What a build tells about itself while it runs; the command line decides how to show it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ortc.evaluation.report import StageTime


@dataclass
class Step:
    """A stage under way; `cached` is set by whoever finds that nothing had to be done, `remote` when that was found in
    the remote cache, `noisy` when what was timed is not kept."""

    stage: str
    subject: str
    cached: bool = False
    remote: bool = False
    noisy: bool = False


@dataclass
class Progress:
    """Collects how long stages take. Subclasses show them."""

    times: list[StageTime] = field(default_factory=list)

    @contextmanager
    def step(self, stage: str, subject: str) -> Iterator[Step]:
        """Around the work of one stage."""
        step = Step(stage, subject)
        begin = time.perf_counter()
        self.started(step)
        try:
            yield step
        finally:
            seconds = time.perf_counter() - begin
            self.times.append(
                StageTime(
                    stage=stage,
                    subject=subject,
                    seconds=round(seconds, 3),
                    cached=step.cached,
                    remote=step.remote,
                    noisy=step.noisy,
                )
            )
            self.ended(step, seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Around all work on one target."""
        begin = time.perf_counter()
        self.part_started(name)
        try:
            yield
        finally:
            self.part_ended(name, time.perf_counter() - begin)

    def part_started(self, name: str) -> None:
        """The work on a target begins."""

    def part_ended(self, name: str, seconds: float) -> None:
        """The work on a target has ended, well or not."""

    def started(self, step: Step) -> None:
        """A stage begins."""

    def ended(self, step: Step, seconds: float) -> None:
        """A stage has ended, well or not."""

    def note(self, text: str) -> None:
        """Something a user should know."""

    def close(self) -> None:
        """Nothing more is shown."""
