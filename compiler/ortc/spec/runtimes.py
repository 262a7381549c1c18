"""What each supported runtime accepts and which packages install it: generated data, never `if`s.

The data lies in targets/data and comes from targets/generate_runtimes.py and targets/generate_pins.py.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ortc.common.resources import data_dir

_INTEGER = re.compile(r"-?\d+", re.ASCII)


class UnknownVersionError(LookupError):
    """The table has no such runtime, exporter, opset or set of pins; the message names those it has."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Option(_Data):
    """One attribute of onnxruntime.SessionOptions or RunOptions, or one option of an execution provider."""

    kind: Literal["bool", "int", "str", "enum"]
    values: tuple[str, ...] = Field(
        default=(), description="Member names of an enum; of a provider's option all texts that it takes, if few."
    )

    def accepts(self, text: str) -> bool:
        """Whether the parser of a provider takes this text as the option's value."""
        if self.values:
            return text in self.values
        return self.kind != "int" or _INTEGER.fullmatch(text) is not None


class Cuda(_Data):
    """What a GPU runtime needs from its machine."""

    version: str = Field(description="CUDA it was built for, `13.0`.")
    cudnn: str = Field(description="Versions of cuDNN it declares, `~=9.0`.")
    least_driver: str = Field(description="Oldest NVIDIA driver for that CUDA, `580`.")
    least_capability: str = Field(description="Least compute capability that it compiles for, `7.5`.")


class Providers(_Data):
    """Execution providers of a runtime."""

    all: tuple[str, ...] = Field(description="Names the runtime knows.")
    available: tuple[str, ...] = Field(description="Those its wheel contains.")


class Runtime(_Data):
    """One version of a runtime package, as probed."""

    package: str
    version: str
    max_opset: int = Field(description="Highest opset of the default domain that it loads.")
    max_ir: int = Field(description="Highest IR version that it loads.")
    pythons: tuple[str, ...]
    platforms: tuple[str, ...]
    cuda: Cuda | None
    session_options: dict[str, Option]
    run_options: dict[str, Option]
    config_keys: frozenset[str] = Field(description="Session configuration keys; ONNX Runtime ignores all others.")
    run_config_keys: frozenset[str]
    providers: Providers
    options: dict[str, dict[str, Option]] = Field(alias="provider_options")

    def provider_options(self, provider: str) -> Mapping[str, Option]:
        """Options of an execution provider in this wheel by name; none for a provider that takes no options.

        Raises:
            UnknownVersionError: the wheel does not contain the provider.
        """
        if provider not in self.options:
            raise UnknownVersionError(
                f"{self.package} {self.version} has no {provider}; it has {', '.join(self.providers.available)}"
            )
        return self.options[provider]


class ExporterLimits(_Data):
    """Opsets of the default domain that an exporter of the pinned torch reaches."""

    default_opset: int
    min_opset: int
    min_native_opset: int = Field(description="Below it the exporter converts down, which may fail or be ignored.")
    max_opset: int


class Wheel(_Data):
    """One file of the package index."""

    file: str
    sha256: str
    bytes: int
    serves: dict[str, tuple[str, ...]] = Field(description="Pythons by platform that this wheel is picked for.")


class Pin(_Data):
    """One package at one version."""

    name: str
    version: str
    marker: str | None
    loader: bool = Field(description="Whether the runtime needs it by itself, not the server alone.")
    wheels: tuple[Wheel, ...]


class Package(_Data):
    """A package of a runtime environment with the digests of the wheels that may be installed."""

    name: str
    version: str
    marker: str | None
    sha256: tuple[str, ...]


class NpmFile(_Data):
    """One file of an npm package, by its path in the package."""

    path: str
    sha256: str
    bytes: int
    to: str | None = Field(default=None, description="Its path below the package's place; its name when not given.")
    platforms: tuple[str, ...] | None = Field(default=None, description="Those that need it; all when not given.")

    def serves(self, platforms: tuple[str, ...]) -> bool:
        """Whether one of some platforms needs it."""
        return self.platforms is None or not set(self.platforms).isdisjoint(platforms)


class NpmPackage(_Data):
    """An npm package at one version, and the files of it that a bundle carries."""

    name: str
    version: str
    license: str
    integrity: str = Field(description="Of its archive, as npm writes it: `sha512-` and base64.", pattern="^sha512-")
    bytes: int = Field(description="Of its archive.")
    place: str = Field(description="Directory of a bundle that the files lie in.")
    files: tuple[NpmFile, ...]

    def placed(self, platforms: tuple[str, ...]) -> dict[str, str]:
        """The files that bundles for some platforms carry: path in the bundle to path in the package."""
        return {
            f"{self.place}/{file.to or file.path.rpartition('/')[2]}": file.path
            for file in self.files
            if file.serves(platforms)
        }


class PinSet(_Data):
    """All packages of a runtime environment, at exact versions; for JavaScript npm packages instead of wheels."""

    format_version: Literal[1]
    name: str
    requirement: str
    server: tuple[str, ...] = Field(description="What the bundle's server needs besides.")
    platforms: tuple[str, ...]
    pythons: tuple[str, ...]
    requirements: tuple[Pin, ...]
    npm: tuple[NpmPackage, ...] = ()

    def serves(self, platform: str, python: str) -> bool:
        """Whether the set has what runs on a platform, with wheels for a Python such as `3.12`."""
        return platform in self.platforms and (bool(self.npm) or python in self.pythons)

    def requirements_txt(
        self,
        platforms: tuple[str, ...] | None = None,
        pythons: tuple[str, ...] | None = None,
        beside: "PinSet | None" = None,
    ) -> str:
        """Text for `pip install --no-deps --require-hashes -r`, for these platforms and Pythons (default: all).

        Packages that are in `beside` already are left out.

        Raises:
            UnknownVersionError: the set does not serve one of them.
        """
        lines = []
        present = {pin.name for pin in beside.requirements} if beside else set[str]()
        for package in self.packages(platforms, pythons):
            if package.name in present:
                continue
            marker = f" ; {package.marker}" if package.marker else ""
            lines.append(f"{package.name}=={package.version}{marker}")
            lines[-1] += "".join(f" \\\n    --hash=sha256:{digest}" for digest in package.sha256)
        return "".join(f"{line}\n" for line in lines)

    def packages(
        self, platforms: tuple[str, ...] | None = None, pythons: tuple[str, ...] | None = None
    ) -> tuple[Package, ...]:
        """What is installed on these platforms and Pythons (default: all).

        Raises:
            UnknownVersionError: the set does not serve one of them.
        """
        wanted = {(platform, python) for platform in self._platforms(platforms) for python in self._pythons(pythons)}
        found = []
        for pin in self.requirements:
            digests = sorted({wheel.sha256 for wheel in pin.wheels if _serves(wheel, wanted)})
            if digests:
                found.append(Package(name=pin.name, version=pin.version, marker=pin.marker, sha256=tuple(digests)))
        return tuple(found)

    def download_bytes(self, platform: str, python: str) -> int:
        """Bytes of all wheels that one platform and Python downloads.

        Raises:
            UnknownVersionError: the set does not serve them.
        """
        pair = {(platform, python)}
        self._platforms((platform,))
        self._pythons((python,))
        return sum(wheel.bytes for pin in self.requirements for wheel in pin.wheels if _serves(wheel, pair))

    def loader_bytes(self, platform: str) -> int:
        """Most bytes, over its Pythons, of the wheels that the loader needs on a platform, without the server's.

        Of npm packages, bytes of the files that bundles carry.

        Raises:
            UnknownVersionError: the set does not serve the platform.
        """
        self._platforms((platform,))
        if self.npm:
            return sum(file.bytes for package in self.npm for file in package.files if file.serves((platform,)))
        needed = [wheel for pin in self.requirements if pin.loader for wheel in pin.wheels]
        return max(
            sum(wheel.bytes for wheel in needed if _serves(wheel, {(platform, python)})) for python in self.pythons
        )

    def joined(self, other: "PinSet", name: str) -> "PinSet":
        """Both sets as one of another name."""
        both = sorted((*self.requirements, *other.requirements), key=lambda pin: (pin.name, pin.version))
        return self.model_copy(
            update={"name": name, "requirements": tuple(both), "npm": (*self.npm, *other.npm)},
        )

    @property
    def sha256(self) -> str:
        """Digest of everything in the set, for cache keys and provenance."""
        unused = None if self.npm else {"npm"}
        return hashlib.sha256(self.model_dump_json(exclude=unused).encode()).hexdigest()

    def _platforms(self, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
        return _subset(f"pins `{self.name}`", "platform", wanted, self.platforms)

    def _pythons(self, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
        return _subset(f"pins `{self.name}`", "Python", wanted, self.pythons)


class _Table(_Data):
    format_version: Literal[1]
    tools: dict[str, str]
    min_ir_for_opset: tuple[tuple[int, int], ...]
    exporters: dict[str, ExporterLimits]
    runtimes: tuple[Runtime, ...]


def runtimes() -> tuple[Runtime, ...]:
    """Every supported runtime, by package and rising version."""
    return _table().runtimes


def runtime(package: str, version: str) -> Runtime:
    """One supported runtime.

    Raises:
        UnknownVersionError: the table does not have it.
    """
    for candidate in runtimes():
        if (candidate.package, candidate.version) == (package, version):
            return candidate
    known = [candidate.version for candidate in runtimes() if candidate.package == package]
    if known:
        raise UnknownVersionError(f"{package} {version} is not supported; supported are {', '.join(known)}")
    packages = sorted({candidate.package for candidate in runtimes()})
    raise UnknownVersionError(f"{package} is not a supported runtime package; supported are {', '.join(packages)}")


def ir_version_for_opset(opset: int) -> int:
    """The least IR version that may hold an opset of the default domain, which is what most runtimes load.

    Raises:
        UnknownVersionError: the ONNX release table does not have the opset.
    """
    versions = dict(_table().min_ir_for_opset)
    if opset not in versions:
        raise UnknownVersionError(f"opset {opset} is unknown; known are {min(versions)} to {max(versions)}")
    return versions[opset]


def exporter_limits(name: str) -> ExporterLimits:
    """Opsets that the exporter `dynamo` or `torchscript` reaches.

    Raises:
        UnknownVersionError: there is no such exporter.
    """
    exporters = _table().exporters
    if name not in exporters:
        raise UnknownVersionError(f"exporter `{name}` is unknown; known are {', '.join(sorted(exporters))}")
    return exporters[name]


def tool_versions() -> dict[str, str]:
    """Versions of the tools whose limits are in the table: onnx and torch."""
    return dict(_table().tools)


@cache
def pins(name: str) -> PinSet:
    """A set of pinned packages: `onnxruntime`, or `onnxruntime+text` with what bundles that take text need besides.

    Raises:
        UnknownVersionError: there is no such set.
    """
    base, *added = name.split("+")
    found = _pin_set("pins", base)
    for other in added:
        found = found.joined(_pin_set("processing", other), name)
    return found


def _pin_set(folder: str, name: str) -> PinSet:
    directory = data_dir() / folder
    known = sorted(path.stem for path in directory.glob("*.json"))
    if name not in known:
        raise UnknownVersionError(f"pins `{name}` are unknown; known are {', '.join(known)}")
    return PinSet.model_validate_json((directory / f"{name}.json").read_bytes())


@cache
def extras() -> tuple[PinSet, ...]:
    """What may be added to any runtime's packages, each for an option of the server."""
    places = sorted((data_dir() / "extras").glob("*.json"))
    return tuple(PinSet.model_validate_json(place.read_bytes()) for place in places)


@cache
def _table() -> _Table:
    return _Table.model_validate_json((data_dir() / "runtimes.json").read_bytes())


def _serves(wheel: Wheel, pairs: set[tuple[str, str]]) -> bool:
    return any((platform, python) in pairs for platform, pythons in wheel.serves.items() for python in pythons)


def _subset(where: str, what: str, wanted: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if wanted is None:
        return known
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise UnknownVersionError(f"{where} do not serve {what} {', '.join(unknown)}; they serve {', '.join(known)}")
    return tuple(wanted)
