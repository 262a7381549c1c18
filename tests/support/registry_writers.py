"""Writers of a registry that are killed at any moment, and writers at once; run as a program, prints what was found.

    registry_writers.py DIRECTORY [--kills N] [--writers N]

Writers are forks of one warm process: what is killed is the registration, not the start of Python. After each kill the
whole registry is read: every bundle that it shows must be complete, every document whole, and nothing that was there
before may be gone.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.whole_bundles import add_measurement, whole_bundle

from ortc.common.errors import OrtcError
from ortc.execution.host import describe
from ortc.registry.aliases import promote, rollback
from ortc.registry.collect import collect
from ortc.registry.contents import blob
from ortc.registry.retrieval import retrieve
from ortc.registry.store import Registry
from ortc.registry.views import view


def fork(work: Callable[[], object]) -> int:
    """A process that does some work; its exit code is 0 when that succeeded, 3 when it was refused."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except OrtcError as error:
        sys.stderr.write(f"{error}\n")
        code = 3
    finally:
        # Nothing of the parent's is flushed or cleared up here.
        os._exit(code)


def register(url: str, bundle: Path, version: str) -> None:
    """What one writer does: a version, an alias to it, and back."""
    registry = Registry(url)
    registry.add(bundle)
    promote(registry, f"linear@{version}", "production")
    rollback(registry, "linear", "production")
    promote(registry, f"linear@{version}", "production")


def proven(place: Path, seen: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    """The bundles that a registry shows, every one whole, after it was read completely.

    Files of bundles in `seen` were hashed before: their records must be the same, and their files there.
    """
    registry = Registry(str(place))
    found = set(registry.bundles("linear"))
    lost = seen.keys() - found
    assert not lost, f"gone: {lost}"
    for version, target in found:
        record = registry.record("linear", version, target)
        assert record is not None
        companions = registry.companions(record)
        assert any(entry.performance for entry in companions), f"{version} without its measurement"
        for file in (*record.files, *(entry.file for entry in companions)):
            content = place / blob(file.sha256)
            assert content.stat().st_size == file.bytes, file
            if (version, target) not in seen:
                assert hashlib.sha256(content.read_bytes()).hexdigest() == file.sha256, file
        assert seen.setdefault((version, target), record.manifest_sha256) == record.manifest_sha256
    for alias in registry.aliases("linear").values():
        assert alias in registry.versions("linear")
    return found


def kills(directory: Path, count: int) -> dict[str, Any]:
    """Kill a writer `count` times, at moments spread over its whole work, and somewhat beyond."""
    place, scratch = directory / "registry", directory / "bundles"
    bundles = []
    for number in range(count):
        made = whole_bundle(scratch / f"{number}", version=f"1.{number}.0", seed=number)
        add_measurement(made, p50=1.0 + number)
        bundles.append(made)
    first = whole_bundle(scratch / "first", version="0.1.0", seed=2**30)
    second = whole_bundle(scratch / "second", version="0.2.0", seed=2**31)
    Registry(str(place)).add(first)
    promote(Registry(str(place)), "linear@0.1.0", "production")
    begin = time.monotonic()
    assert os.waitpid(fork(lambda: register(str(place), second, "0.2.0")), 0)[1] == 0
    whole = time.monotonic() - begin
    seen: dict[tuple[str, str], str] = {}
    proven(place, seen)
    outcomes: Counter[str] = Counter()
    moments = random.Random(0)  # noqa: S311 - moments, not secrets
    for number, bundle in enumerate(bundles):
        version = f"1.{number}.0"
        child = fork(lambda bundle=bundle, version=version: register(str(place), bundle, version))
        time.sleep(moments.uniform(0, 1.2 * whole))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        visible = (version, "cpu") in proven(place, seen)
        ended = os.WIFEXITED(status)
        assert visible or not ended, f"{version} was registered, and is not there"
        outcomes["ended before the kill" if ended else "killed, visible" if visible else "killed, not visible"] += 1
    # Whoever was killed tries again.
    registry = Registry(str(place))
    for bundle in bundles:
        registry.add(bundle)
    assert len(proven(place, seen)) == count + 2
    left = collect(registry)
    for number, version in enumerate(registry.versions("linear")[:: max(1, count // 10)]):
        retrieve(registry, "linear", version, "cpu", directory / f"out{number}")
    return {"kills": count, "writer_seconds": whole, "outcomes": dict(outcomes), "marked": len(left.marked)}


def writers(directory: Path, count: int) -> dict[str, Any]:
    """Writers at once: each with a version of its own; half with one bundle, half with another of its name."""
    place, scratch = directory / "shared", directory / "of-writers"
    one = whole_bundle(scratch / "one", version="1.0.0", seed=1)
    other = whole_bundle(scratch / "other", version="1.0.0", seed=2)
    own = [whole_bundle(scratch / f"own{i}", version=f"2.{i}.0", seed=10 + i) for i in range(count)]

    def work(number: int) -> None:
        registry = Registry(str(place))
        registry.add(own[number])
        for _ in range(5):
            promote(registry, f"linear@2.{number}.0", "production")
        registry.add(one if number % 2 else other)

    statuses = [os.waitpid(child, 0)[1] for child in [fork(lambda n=n: work(n)) for n in range(count)]]
    codes = [os.waitstatus_to_exitcode(status) for status in statuses]
    assert set(codes) <= {0, 3}, codes
    found = proven(place, {})
    assert found == {("1.0.0", "cpu"), *((f"2.{i}.0", "cpu") for i in range(count))}
    # One of the two bundles has the name; its writers succeeded, the others' were refused.
    winner = Registry(str(place)).record("linear", "1.0.0", "cpu")
    assert winner is not None
    sha256 = hashlib.sha256((one / "manifest.json").read_bytes()).hexdigest()
    expected = [0 if (number % 2 == 1) == (winner.manifest_sha256 == sha256) else 3 for number in range(count)]
    assert codes == expected, (codes, expected)
    events = Registry(str(place)).events("linear", "production")
    assert len(events) == 5 * count, "no promotion is lost"
    history = view(Registry(str(place)), "linear").history
    return {"writers": count, "refused": codes.count(3), "events": len(events), "history": len(history)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--writers", type=int, default=8)
    options = parser.parse_args()
    found = {**kills(options.directory, options.kills), **writers(options.directory, options.writers)}
    print(json.dumps({**found, **machine()}, indent=1))  # noqa: T201


def machine() -> dict[str, Any]:
    """What this was found on, for the record in tests/benchmarks/data."""
    return {
        "host": describe().model_dump(mode="json"),
        "versions": {"python": platform.python_version(), "fsspec": importlib.metadata.version("fsspec")},
        "date": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    main()
