"""Generate targets/data/pins/ and extras/: the packages of each runtime environment and of what may be added to it.

Run `python targets/generate_pins.py [--only NAME]` after a new release of a runtime; it needs `packaging` and a
package index that pip reaches. With `--mark`, versions stay, and only what the loader needs is marked anew.

One version of each package serves every platform and Python of a set where such a version exists; where none does,
requirements carry environment markers. A runtime's set also holds what the server is made of; an extra holds what an
option of the server needs besides. `processing` holds what bundles that take text or images need besides, at its own
version and without what it requires: readers of files need none of that. `loader` marks what a runtime requires by
itself: with the model, that is what somebody downloads who serves in another way.
"""

import argparse
import json
import sys
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from generate_common import DATA, MACHINES, PYTHONS, Distribution, pick, write_json
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FORMAT_VERSION = 1
RUNTIME_VERSION = "1.31.1"
OPENVINO_RUNTIME_VERSION = "1.24.1"  # the newest release of onnxruntime-openvino
TOKENIZERS_VERSION = "0.23.3"
PILLOW_VERSION = "13.0.0"
# httptools parses HTTP in C for half a megabyte; uvloop would be four more, for less. orjson, as large, writes 24,576
# numbers of an answer in 0.7 ms, for which the standard library takes 30, twice as long as the model.
SERVER = ("starlette>=1.10", "uvicorn>=0.54", "httptools>=0.9", "orjson>=3.11", "prometheus-client>=0.26")
Pair = tuple[str, str]  # platform, Python


@dataclass(frozen=True)
class Root:
    """A set of pins: the runtime's requirement, beside which the server's stand, and the platforms it serves.

    `alone`: what it requires is left out, and everything is for the loader.
    """

    name: str
    requirement: str
    platforms: tuple[str, ...]
    pythons: tuple[str, ...] = PYTHONS
    folder: str = "pins"
    also: tuple[str, ...] = SERVER
    alone: bool = False


ROOTS = (
    Root("onnxruntime", f"onnxruntime=={RUNTIME_VERSION}", ("linux/amd64", "linux/arm64")),
    # Its newest release has no wheel for Python 3.14.
    Root(
        "onnxruntime-openvino",
        f"onnxruntime-openvino=={OPENVINO_RUNTIME_VERSION}",
        ("linux/amd64",),
        pythons=("3.11", "3.12", "3.13"),
    ),
    # CUDA and cuDNN come from the base image.
    Root("onnxruntime-gpu", f"onnxruntime-gpu=={RUNTIME_VERSION}", ("linux/amd64",)),
    # CUDA and cuDNN come from wheels; the extra `cuda` lacks cuBLAS, which cuDNN's wheel requires.
    Root("onnxruntime-gpu-cuda", f"onnxruntime-gpu[cuda,cudnn]=={RUNTIME_VERSION}", ("linux/amd64",)),
    Root("grpc", "grpcio>=1.81", ("linux/amd64", "linux/arm64"), folder="extras", also=("protobuf>=6.30",)),
    Root(
        "trace",
        "opentelemetry-sdk>=1.40",
        ("linux/amd64", "linux/arm64"),
        folder="extras",
        also=("opentelemetry-exporter-otlp-proto-http>=1.40",),
    ),
    Root(
        "text",
        f"tokenizers=={TOKENIZERS_VERSION}",
        ("linux/amd64", "linux/arm64"),
        folder="processing",
        also=(),
        alone=True,
    ),
    Root(
        "image",
        f"pillow=={PILLOW_VERSION}",
        ("linux/amd64", "linux/arm64"),
        folder="processing",
        also=(),
        alone=True,
    ),
)


def main() -> int:
    """Resolve the sets asked for and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=[root.name for root in ROOTS], help="regenerate one set")
    parser.add_argument("--mark", action="store_true", help="keep what is pinned, and mark what the loader needs of it")
    arguments = parser.parse_args()
    for root in ROOTS:
        if arguments.only in (None, root.name):
            path = DATA / root.folder / f"{root.name}.json"
            write_json(path, marked(root, json.loads(path.read_text("utf-8"))) if arguments.mark else generate(root))
            print(f"wrote targets/data/{root.folder}/{root.name}.json", file=sys.stderr)
    return 0


def generate(root: Root) -> dict[str, object]:
    """The pin file of one set."""
    pairs = [(platform, python) for platform in root.platforms for python in root.pythons]
    chosen = resolve((root.requirement, *root.also), pairs, alone=root.alone)
    sizes: dict[str, int] = {}
    needed = loader_names(root, lambda pair, name: chosen[pair][name])
    requirements = []
    for name in sorted({name for wheels in chosen.values() for name in wheels}):
        by_version: dict[str, dict[Pair, Distribution]] = {}
        for pair in pairs:
            if name in chosen[pair]:
                by_version.setdefault(chosen[pair][name].version, {})[pair] = chosen[pair][name]
        for version in sorted(by_version, key=Version):
            picked = by_version[version]
            requirements.append(
                {
                    "name": name,
                    "version": version,
                    "marker": marker(list(picked), pairs),
                    "loader": name in needed,
                    "wheels": wheels_of(picked, sizes),
                }
            )
    return {
        "format_version": FORMAT_VERSION,
        "name": root.name,
        "requirement": root.requirement,
        "server": list(root.also),
        "platforms": list(root.platforms),
        "pythons": list(root.pythons),
        "requirements": requirements,
    }


def marked(root: Root, found: dict[str, Any]) -> dict[str, Any]:
    """A pin file whose packages say whether the loader needs them; versions and digests as they were."""

    @cache
    def wheel(pair: Pair, name: str) -> Distribution:
        platform, python = pair
        version = next(
            pin["version"]
            for pin in found["requirements"]
            if pin["name"] == name and any(python in entry["serves"].get(platform, ()) for entry in pin["wheels"])
        )
        return one(f"{name}=={version}", pair)

    needed = loader_names(root, wheel)
    return {**found, "requirements": [{**pin, "loader": pin["name"] in needed} for pin in found["requirements"]]}


def loader_names(root: Root, wheel: Callable[[Pair, str], Distribution]) -> set[str]:
    """What the runtime requires by itself, without what the server is made of; nothing of an extra."""
    names: set[str] = set()
    if root.alone:
        return {canonicalize_name(Requirement(root.requirement).name)}
    if root.folder != "pins":
        return names
    for pair in ((platform, python) for platform in root.platforms for python in root.pythons):
        seen: set[str] = set()
        pending = [Requirement(root.requirement)]
        while pending:
            wanted = pending.pop()
            if str(wanted) not in seen:
                seen.add(str(wanted))
                name = canonicalize_name(wanted.name)
                names.add(name)
                pending += requires(wheel(pair, name), pair, wanted.extras)
    return names


def resolve(
    requirements: Iterable[str], pairs: list[Pair], *, alone: bool = False
) -> dict[Pair, dict[str, Distribution]]:
    """For each pair the wheels that satisfy the requirements and all that they require, or the former `alone`.

    A package found under a new constraint is chosen again, until nothing changes.
    """
    specifiers: dict[str, set[str]] = {}
    extras: dict[tuple[Pair, str], set[str]] = {}  # its keys say which pairs need which packages
    chosen: dict[Pair, dict[str, Distribution]] = {pair: {} for pair in pairs}
    pending = [(pair, Requirement(requirement)) for requirement in requirements for pair in pairs]
    while pending:
        changed = set()
        for pair, wanted in pending:
            name = canonicalize_name(wanted.name)
            asked = {str(part) for part in wanted.specifier}
            if not ((pair, name) in extras and wanted.extras <= extras[pair, name] and asked <= specifiers[name]):
                changed.add(name)
            extras.setdefault((pair, name), set()).update(wanted.extras)
            specifiers.setdefault(name, set()).update(asked)
        pending = []
        for name in sorted(changed):
            users = [pair for pair in pairs if (pair, name) in extras]
            for pair, wheel in choose(name, sorted(specifiers[name]), users).items():
                chosen[pair][name] = wheel
                if not alone:
                    pending += [(pair, found) for found in requires(wheel, pair, extras[pair, name])]
    return chosen


def choose(name: str, specifiers: Iterable[str], pairs: list[Pair]) -> dict[Pair, Distribution]:
    """The newest version that has a wheel for every pair; each pair's own newest when there is none."""
    newest = {pair: one(f"{name}{','.join(specifiers)}", pair) for pair in pairs}
    versions = {wheel.version for wheel in newest.values()}
    if len(versions) == 1:
        return newest
    common = {}
    for pair in pairs:
        picked = pick([f"{name}=={min(versions, key=Version)}"], *pair)
        if picked is None:
            return newest
        common[pair] = picked[0]
    return common


def one(requirement: str, pair: Pair) -> Distribution:
    """The wheel pip picks for this requirement.

    Raises:
        SystemExit: the index has no wheel for this pair.
    """
    picked = pick([requirement], *pair)
    if picked is None:
        raise SystemExit(f"the index has no wheel of {requirement} for {pair[0]}, Python {pair[1]}; drop the pair")
    return picked[0]


def requires(wheel: Distribution, pair: Pair, extras: set[str]) -> list[Requirement]:
    """What a wheel requires in this pair's environment, with these extras."""
    platform, python = pair
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": MACHINES[platform],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    found = [Requirement(text) for text in wheel.requires]
    return [
        item
        for item in found
        if item.marker is None or any(item.marker.evaluate(environment | {"extra": extra}) for extra in {"", *extras})
    ]


def marker(used: list[Pair], pairs: list[Pair]) -> str | None:
    """The environment marker that holds for the used pairs and for no other of the set."""
    if len(used) == len(pairs):
        return None
    alternatives = []
    for platform in sorted({platform for platform, _ in used}):
        pythons = [python for other, python in used if other == platform]
        terms = [f'platform_machine == "{MACHINES[platform]}"']
        if len(pythons) < len({python for _, python in pairs}):
            terms.append("(" + " or ".join(f'python_version == "{python}"' for python in pythons) + ")")
        alternatives.append(" and ".join(terms))
    return " or ".join(alternatives)


def wheels_of(picked: dict[Pair, Distribution], sizes: dict[str, int]) -> list[dict[str, object]]:
    """The distinct wheels among those picked, each with its size and the pairs it serves."""
    wheels = []
    for wheel in sorted(set(picked.values()), key=lambda wheel: wheel.file):
        serves: dict[str, list[str]] = {}
        for (platform, python), other in picked.items():
            if other == wheel:
                serves.setdefault(platform, []).append(python)
        if wheel.url not in sizes:
            sizes[wheel.url] = size_of(wheel)
        wheels.append({"file": wheel.file, "sha256": wheel.sha256, "bytes": sizes[wheel.url], "serves": serves})
    return wheels


def size_of(wheel: Distribution) -> int:
    """Bytes to download for a wheel, as the index states them."""
    request = urllib.request.Request(wheel.url, method="HEAD")
    with urllib.request.urlopen(request, timeout=60) as answer:
        length = answer.headers["Content-Length"]
    if length is None:
        raise SystemExit(f"the index did not state the size of {wheel.file}; run again")
    return int(length)


if __name__ == "__main__":
    sys.exit(main())
