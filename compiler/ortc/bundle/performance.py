"""What a file of measurements/ says, read strictly: deployments, signatures, registries and listings ask here."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ortc.common.errors import StageError
from ortc.common.texts import Cleaned, shown
from ortc.common.values import Count, Frozen
from ortc.evaluation.report import Numbers, Verdict
from ortc.evaluation.trade import Trade
from ortc.execution.host import Host
from ortc.spec.vocabulary import MAX_THREADS, Sha256

Fingerprint = Annotated[str, Field(min_length=1, max_length=255)]
ThreadCount = Annotated[int, Field(ge=1, le=MAX_THREADS)]


class Performance(Frozen):
    """What a bundle's measurement says of one machine; `numbers` is None where nothing was timed."""

    fingerprint: Fingerprint
    host: Host
    shape: Cleaned | None
    threads: ThreadCount | None
    numbers: Numbers | None
    verdicts: dict[Cleaned, Count]


class KeptRace(BaseModel):
    """What is read of the race of a measurement; its samples are not."""

    model_config = ConfigDict(frozen=True)

    shape: Cleaned | None = None
    threads: ThreadCount | None = None


class KeptOrigin(BaseModel):
    """When an attached measurement was made, and the digest of its file; what else it says is not read again."""

    model_config = ConfigDict(frozen=True)

    measured: AwareDatetime
    sha256: Sha256


class KeptMeasurement(BaseModel):
    """A file of measurements/, as `ortc build` and `ortc attach` write it."""

    model_config = ConfigDict(frozen=True)

    host: Host
    verdicts: tuple[Verdict, ...]
    numbers: Numbers | None
    race: KeptRace | None = None
    trades: tuple[Trade, ...] = ()
    attached: KeptOrigin | None = None

    def performance(self, fingerprint: str) -> Performance:
        """What it says of the machine with this fingerprint."""
        outcomes = [verdict.outcome for verdict in self.verdicts]
        race = self.race or KeptRace()
        return Performance(
            fingerprint=fingerprint,
            host=self.host,
            shape=race.shape,
            threads=race.threads,
            numbers=self.numbers,
            verdicts={outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        )


def performance(fingerprint: str, document: dict[str, Any]) -> Performance:
    """What a file of measurements/ says.

    Raises:
        ValueError: it is no measurement of this format.
    """
    return KeptMeasurement.model_validate_json(json.dumps(document)).performance(fingerprint)


def read_kept(content: bytes, path: str, help: str | None = None) -> KeptMeasurement:  # noqa: A002
    """A file of measurements/ from its bytes.

    Args:
        content: the file.
        path: of the file, for messages.
        help: what to do about one that is not as it was written.

    Raises:
        StageError: it is no measurement of this format; the message names the field.
    """
    try:
        return KeptMeasurement.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = shown(".".join(map(str, first["loc"]))) or "the document"
        said = first["msg"].removeprefix("Value error, ")
        raise StageError(f"{path} is no measurement that this ortc reads: `{where}`: {said}", help=help) from error


def performance_in(content: bytes, path: str) -> Performance:
    """What a measurement says, from the bytes of its file.

    Args:
        content: the file.
        path: of the file, for its fingerprint and for messages.

    Raises:
        StageError: it is no measurement of this format.
    """
    return read_kept(content, path).performance(PurePosixPath(path).stem)
