"""What a bundle measured of itself on some machine: the file that its runtime/measure.py writes."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from ortc.common.errors import StageError, UsageError
from ortc.common.plain_files import not_plain, read_plain
from ortc.common.texts import Cleaned, Label, Line, shown
from ortc.common.values import Count, Frozen, Measured, Timed, digest
from ortc.evaluation import latency
from ortc.evaluation.accuracy import CPU
from ortc.evaluation.machine import HELD_ELSEWHERE, Say, exclusive
from ortc.evaluation.report import Contender, Control, Load, Numbers, Race, Soak, Starts
from ortc.execution.host import Host
from ortc.execution.processes import bundled_script
from ortc.execution.worker_process import WorkerError, answer_of
from ortc.plan.plan import PositiveSize, Shape
from ortc.spec.vocabulary import MAX_THREADS, Name, Sha256, Version

KIND = "ortc-measurement"
FORMAT_VERSION = 1
PROGRAM = "runtime/measure.py"
MOST_BYTES = 64 * 2**20
MEASURING_SECONDS = 4 * 3600.0
"""Seconds that a bundle may take to measure itself."""
"""Of a file that is read: 20 rounds of 500 runs take 250 kB."""
LIMIT_STEP = 64 * 2**20
AGAIN = "get the file again from the machine that measured, or measure there again"
Distance = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False)]


class GoldenSeen(Frozen):
    """How far the answers to a golden case were from PyTorch's."""

    name: Line
    max_abs: Distance
    cosine: Distance


class Fallback(Frozen):
    """What the first provider left to the CPU: nodes, those besides that compute nothing but shapes, and some names."""

    nodes: Count
    shape_nodes: Count
    named: tuple[Cleaned, ...]


class Measurement(Frozen):
    """One bundle on one machine: milliseconds by round, seconds of starts, bytes.

    `failed` says what was wrong with the golden answers; then nothing was timed. Files of older bundles have no control
    workload, no processor time of the rounds and no load. `sha256` is of all the rest, as it
    stands in the file: it finds what was damaged or edited, and proves nothing of who measured.
    """

    format_version: Literal[1]
    kind: Literal["ortc-measurement"]
    name: Name
    version: Version
    target: Name
    manifest_sha256: Sha256
    sums_sha256: Sha256
    measured: AwareDatetime
    host: Host
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)]
    versions: dict[Label, Cleaned]
    providers: tuple[Label, ...]
    placement: dict[Label, Count]
    prepacked: bool
    at: dict[Label, PositiveSize]
    golden: tuple[GoldenSeen, ...]
    failed: Cleaned | None
    rounds: tuple[Annotated[tuple[Timed, ...], Field(min_length=1)], ...]
    starts: tuple[Timed, ...]
    peak_rss_bytes: Annotated[Count, Field(ge=1)]
    peak_device_bytes: Count | None = None
    soak: Soak | None = None
    copies: dict[Label, Annotated[Count, Field(ge=1)]] | None = None
    fallback: Fallback | None = None
    wall_seconds: tuple[Timed, ...] = ()
    cpu_seconds: tuple[Measured, ...] = ()
    control: Control | None = None
    start_control: Control | None = None
    load: Load | None = None
    sha256: Sha256

    def race(self, name: str) -> Race:
        """The rounds as a race of one; `name` is the variant's.

        Raises:
            ValueError: nothing was timed.
        """
        if not self.rounds or not self.starts:
            raise ValueError("nothing was timed")
        return Race(
            shape=str(Shape(sizes=tuple(self.at.items()))),
            host=self.host,
            threads=self.threads,
            contenders=(
                Contender(name=name, rounds=self.rounds, wall_seconds=self.wall_seconds, cpu_seconds=self.cpu_seconds),
            ),
            control=self.control,
            load=self.load,
        )

    def numbers(self, race: Race) -> Numbers:
        """Percentiles with their intervals, start and memory."""
        starts = Starts(seconds=self.starts, peak_rss_bytes=self.peak_rss_bytes, control=self.start_control)
        found = latency.numbers(race, race.contenders[0].name, starts, self.peak_rss_bytes)
        # The peak of starts alone is not in the file.
        return found.model_copy(
            update={"peak_device_bytes": self.peak_device_bytes, "start_peak_rss_bytes": None, "soak": self.soak}
        )

    @property
    def gpu_mem_limit(self) -> int | None:
        """Bytes for the option of that name of CUDA's provider: what was in use, a tenth more, in whole 64 MiB.

        The option bounds the arena of a session. What was measured also holds CUDA's context and the libraries' own
        workspaces, so that the limit leaves room, and still keeps a session from taking the GPU that others share.
        """
        return None if not self.peak_device_bytes else -(-self.peak_device_bytes * 11 // 10 // LIMIT_STEP) * LIMIT_STEP

    @property
    def cpu_nodes(self) -> int:
        """Nodes that the first provider left to the CPU, but for those that compute nothing but shapes."""
        if self.providers == (CPU,):
            return 0
        return self.placement.get(CPU, 0) if self.fallback is None else self.fallback.nodes

    @property
    def shape_nodes(self) -> int:
        """Nodes on the CPU that compute nothing but shapes, as far as they were told apart."""
        return 0 if self.fallback is None else self.fallback.shape_nodes

    @property
    def memcpy_nodes(self) -> int | None:
        """Nodes that copied between host and device; None where they were not counted."""
        if self.providers == (CPU,):
            return 0
        return None if self.copies is None else sum(self.copies.values())

    def about(self) -> dict[str, Any]:
        """All but the samples and the host, as JSON."""
        return self.model_dump(mode="json", exclude={"rounds", "host", "wall_seconds", "cpu_seconds", "control"})


def read_measurement(file: Path) -> Measurement:
    """The measurement in a file.

    Raises:
        UsageError: there is no such file.
        StageError: it is no measurement, of a format that this ortc does not know, or not as it was written.
    """
    document = _as_written(file)
    try:
        measurement = Measurement.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = shown(".".join(str(part) for part in first["loc"])) or "it"
        raise StageError(
            f"{file} is no measurement that this ortc reads: {where}: {first['msg']}", help=AGAIN
        ) from None
    left = measurement.fallback
    if left is not None and len(left.named) > left.nodes:
        raise StageError(f"{file} names {len(left.named)} of {left.nodes} nodes on the CPU", help=AGAIN)
    if left is not None and measurement.providers != (CPU,):
        counted = measurement.placement.get(CPU, 0)
        if left.nodes + left.shape_nodes != counted:
            raise StageError(
                f"{file} tells {left.nodes} nodes and {left.shape_nodes} for shapes apart, of {counted} on the CPU",
                help=AGAIN,
            )
    clocks = {"wall_seconds": measurement.wall_seconds, "cpu_seconds": measurement.cpu_seconds}
    for name, values in clocks.items():
        if values and len(values) != len(measurement.rounds):
            raise StageError(
                f"{file} has {len(values)} values of `{name}` for {len(measurement.rounds)} rounds", help=AGAIN
            )
    for control in (measurement.control, measurement.start_control):
        if control is not None and not len(control.rounds) == len(control.wall_seconds) == len(control.cpu_seconds):
            raise StageError(f"{file} has a control workload whose rounds and clocks are not as many", help=AGAIN)
    if (measurement.failed is None) != bool(measurement.rounds and measurement.starts):
        raise StageError(f"{file} has either wrong golden answers or times, not both and not neither", help=AGAIN)
    return measurement


def _as_written(file: Path) -> dict[str, Any]:
    """The document in a file, which has the digest that it states."""
    try:
        content = read_plain(file, MOST_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise StageError(f"{file} is no measurement: it has more than {MOST_BYTES} bytes") from error
        raise UsageError(
            f"{file} cannot be read: {error.strerror}", help=f"`python {PROGRAM} --output FILE` in the bundle writes it"
        ) from error
    try:
        document = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise StageError(f"{file} is no measurement: it is not JSON: {error}", help=AGAIN) from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise StageError(
            f"{file} is no measurement: its `kind` is not `{KIND}`",
            help=f"`python {PROGRAM} --output FILE` in the bundle writes one; so does `ortc bench --measurement FILE`",
        )
    if document.get("format_version") != FORMAT_VERSION:
        raise StageError(
            f"{file} has format_version {document.get('format_version')!r}, this ortc reads {FORMAT_VERSION}",
            help="attach it with the ortc that built the bundle, or a newer one",
        )
    try:
        found = digest({key: value for key, value in document.items() if key != "sha256"})
    except (ValueError, RecursionError) as error:
        raise StageError(f"{file} is not as it was written: {error}", help=AGAIN) from error
    if document.get("sha256") != found:
        raise StageError(
            f"{file} was edited or damaged: the sha256 of what it says is {found}, it states {document.get('sha256')}",
            help=AGAIN,
        )
    return document


def take(bundle: Path, interpreter: Path, file: Path, say: Say = latency.silent) -> Measurement:
    """Let a bundle measure itself on this machine, and read what it wrote.

    Args:
        bundle: the directory.
        interpreter: of an environment that has the bundle's requirements.
        file: to be written.
        say: told when another measurement on this machine is waited for.

    Raises:
        UsageError: the bundle cannot measure itself, or the file is a pipe or a device.
        StageError: it fails.
    """
    program = bundle / PROGRAM
    if not program.is_file():
        raise UsageError(f"{bundle} has no {PROGRAM}: an older ortc built it", help="build the bundle again")
    if (kind := not_plain(file)) is not None:
        raise UsageError(f"{file} is {kind}, not a plain file", help="name a file that is to be written")
    command = bundled_script(interpreter, program, "--bundle", str(bundle), "--output", str(file))
    with exclusive(say):
        try:
            answer_of(str(bundle), command, environment={HELD_ELSEWHERE: "1"}, seconds=MEASURING_SECONDS)
        except WorkerError as error:
            raise StageError(f"{bundle} does not measure itself: {error.message}", details=error.details) from error
    return read_measurement(file)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
