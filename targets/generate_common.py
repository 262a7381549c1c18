"""What the generators of targets/data share: asking the package index through pip, and writing JSON.

Pip is run without the machine's own configuration: extra indexes and find-links may hold rebuilt wheels, whose
digests nobody else can download. A mirror named in PIP_INDEX_URL is kept, for it serves the same files.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent / "data"
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEWEST_GLIBC = 28  # glibc 2.28: Debian 10, RHEL 8 and later
_KEPT = ("PIP_CERT", "PIP_INDEX_URL", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_CACHE_DIR")


@dataclass(frozen=True)
class Distribution:
    """One wheel that pip picked, as its installation report describes it."""

    name: str
    version: str
    file: str
    url: str
    sha256: str
    requires: tuple[str, ...]


def pip_environment() -> dict[str, str]:
    """The process environment without settings that would mix local files with those of the index."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_") or key in _KEPT}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def platform_options(platform: str, python: str) -> list[str]:
    """Options of pip for wheels that install on this platform with glibc 2.28 and this CPython."""
    machine = MACHINES[platform]
    legacy = ["manylinux2014", "manylinux2010", "manylinux1"] if machine == "x86_64" else ["manylinux2014"]
    tags = [f"manylinux_2_{minor}" for minor in range(NEWEST_GLIBC, 4, -1)] + legacy
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for tag in tags:
        options += ["--platform", f"{tag}_{machine}"]
    return options


def pick(requirements: list[str], platform: str, python: str) -> tuple[Distribution, ...] | None:
    """The wheels pip picks for these requirements, dependencies left aside; None when one has no such wheel.

    Raises:
        SystemExit: pip failed for another reason.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        command += ["--target", scratch, "--report", str(report), *platform_options(platform, python), *requirements]
        done = subprocess.run(command, env=pip_environment(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            if "No matching distribution found" in done.stderr:
                return None
            raise SystemExit(f"pip failed for {', '.join(requirements)} on {platform}, Python {python}:\n{done.stderr}")
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return tuple(_distribution(item) for item in items)


def write_json(path: Path, value: object) -> None:
    """Write JSON so that equal data gives equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(value), encoding="utf-8")


def to_json(value: object) -> str:
    """JSON with sorted keys and lists of short values on one line, so that a diff shows what changed."""
    return _render(value, "") + "\n"


def _render(value: object, indent: str) -> str:
    flat = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(indent) + len(flat) <= 100 or not isinstance(value, (dict, list)) or not value:
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(key)}: {_render(value[key], deeper)}" for key in sorted(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + _render(item, deeper) for item in value) + f"\n{indent}]"


def _distribution(item: dict[str, Any]) -> Distribution:
    url = item["download_info"]["url"]
    return Distribution(
        name=item["metadata"]["name"].lower().replace("_", "-"),
        version=item["metadata"]["version"],
        file=url.rsplit("/", 1)[-1],
        url=url,
        sha256=item["download_info"]["archive_info"]["hashes"]["sha256"],
        requires=tuple(item["metadata"].get("requires_dist", ())),
    )
