"""What loaders let session.json say of each supported runtime: generated data, by targets/generate_settings.py."""

from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ortc.common.resources import data_dir

ENGINES = "/tmp/ortc-engines"  # noqa: S108
"""The one place, in containers, that options which end in `_path` may name."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Allowed(_Data):
    """Names that a bundle of one runtime may set."""

    package: str
    version: str
    session_options: frozenset[str]
    config_entries: frozenset[str]
    provider_options: dict[str, frozenset[str]]


class Settings(_Data):
    """The whole table."""

    format_version: Literal[1]
    environment: frozenset[str]
    openvino_properties: frozenset[str]
    runtimes: tuple[Allowed, ...]

    def of(self, package: str, version: str) -> Allowed:
        """What a bundle of a runtime may set.

        Raises:
            KeyError: the table does not have the runtime.
        """
        for entry in self.runtimes:
            if (entry.package, entry.version) == (package, version):
                return entry
        raise KeyError(f"{package} {version}")


@cache
def settings() -> Settings:
    """The table."""
    return Settings.model_validate_json((data_dir() / "settings.json").read_bytes())
