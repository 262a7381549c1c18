"""The remote cache: machines share finished work, and nothing that fails of it does more than cost time."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from ortc.execution import remote_cache as remote_module
from ortc.execution.action_cache import Store
from ortc.execution.remote_cache import RemoteCache

INPUTS = {"opset": 17}
FILES = {"model.onnx": b"graph", "model.onnx.data": b"w" * 100_000, "deep/file": b"graph"}

Machine = Callable[..., Store]


class Broken(MemoryFileSystem):
    """A place where some operations fail as a driver's do."""

    protocol = "broken"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures: ClassVar[dict[str, Callable[[], object]]] = {}

    def _fail(self, name: str) -> None:
        if (failure := self.failures.get(name)) is not None:
            failure()

    def info(self, path: str, **options: Any) -> Any:
        self._fail("info")
        return super().info(path, **options)

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._fail("read")
        return super().cat_file(path, *arguments, **options)

    def pipe_file(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._fail("write")
        return super().pipe_file(path, *arguments, **options)

    def put_file(self, *arguments: Any, **options: Any) -> Any:
        self._fail("write")
        return super().put_file(*arguments, **options)


def failing(error: Exception) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Callable[[], object]]]:
    """What fails in `broken://`, by operation."""
    fsspec.register_implementation("broken", Broken, clobber=True)
    monkeypatch.setattr(Broken, "failures", {})
    yield Broken.failures
    Broken.store.clear()


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/shared" if request.param == "file" else f"memory://{uuid.uuid4().hex}/shared"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with an empty cache of its own."""

    def new(url: str, **options: Any) -> Store:
        return Store(tmp_path / f"machine-{uuid.uuid4().hex}", RemoteCache(url, **options))

    return new


def export(directory: Path) -> dict[str, Any]:
    for name, content in FILES.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)
    return {"nodes": 3}


def fail(_: Path) -> dict[str, Any]:
    raise AssertionError("done again")


def contents(store: Store, action: Callable[[Path], dict[str, Any]] = fail) -> tuple[str, dict[str, bytes]]:
    """Where an entry was found, and its files."""
    entry = store.run("export", INPUTS, action, "bert")
    assert entry.result == {"nodes": 3}
    return entry.found, {name: path.read_bytes() for name, path in entry.files.items()}


def names(url: str) -> list[str]:
    """Every file of a remote cache."""
    system, root = fsspec.core.url_to_fs(url)
    return sorted(path.removeprefix(root) for path in system.find(root))


def blob_of(url: str, content: bytes) -> tuple[Any, str]:
    system, root = fsspec.core.url_to_fs(url)
    return system, next(path for path in system.find(f"{root}/blobs") if system.cat_file(path) == content)


def test_what_one_machine_did_another_has(machine: Machine, url: str) -> None:
    one, two = machine(url), machine(url)
    assert contents(one, export) == ("nowhere", FILES)
    assert contents(two) == ("remote", FILES)
    # From now on without a question to the remote cache.
    two.remote = None
    assert contents(two) == ("here", FILES)
    assert two.records.why_missing("export", {"opset": 18}, "bert") == "changed: opset 17 -> 18"
    assert [*one.warnings(), *two.warnings()] == []


def test_the_layout(machine: Machine, url: str) -> None:
    store = machine(url)
    entry = store.run("export", INPUTS, export)
    digests = sorted({path.name for path in entry.files.values()})
    # Two of the three files are equal, and nothing unfinished is left.
    assert names(url) == [f"/actions/{entry.key}.json", *(f"/blobs/{sha[:2]}/{sha}" for sha in digests)]
    assert len(digests) == 2


def test_files_that_are_there_are_not_sent_again(machine: Machine, broken: dict[str, Callable[[], object]]) -> None:
    one, two = machine("broken://cache"), machine("broken://cache")
    one.run("export", INPUTS, export)
    writes: list[int] = []
    broken["write"] = lambda: writes.append(1)
    two.run("variant", {"other": 1}, export)
    assert len(writes) == 1, "the record alone"


def test_a_plan_knows_without_the_files(machine: Machine, url: str) -> None:
    machine(url).run("export", INPUTS, export)
    store = machine(url)
    entry = store.foresee("export", INPUTS)
    assert entry is not None
    assert (entry.found, entry.result) == ("remote", {"nodes": 3})
    assert not store.root.exists()
    assert store.foresee("export", {"opset": 18}) is None
    contents(store)
    entry = store.foresee("export", INPUTS)
    assert entry is not None
    assert entry.found == "here"


def test_results_that_belong_to_a_machine_stay_there(machine: Machine, url: str) -> None:
    store = machine(url)
    store.put("bundle", INPUTS, {"sums": "0"})
    assert names(url) == []


@pytest.mark.parametrize("damage", [b"", b"w" * 99_999, b"W" + b"w" * 99_999, b"w" * 100_001, None])
def test_a_damaged_file_is_never_used_and_then_mended(machine: Machine, url: str, damage: bytes | None) -> None:
    contents(machine(url), export)
    system, path = blob_of(url, FILES["model.onnx.data"])
    if damage is None:
        system.rm_file(path)
    else:
        system.pipe_file(path, damage)
    two = machine(url)
    assert contents(two, export) == ("nowhere", FILES)
    (warning,) = two.warnings()
    assert "`model.onnx.data`" in warning
    assert "its action is done here" in warning
    # What this machine did took the place of what was damaged.
    assert contents(machine(url)) == ("remote", FILES)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"nodes": 3', '"nodes": 4'),
        lambda text: text.replace("deep/file", "../../file"),
        lambda text: "[]",
    ],
)
def test_a_damaged_record_is_never_used_and_then_mended(
    machine: Machine, url: str, change: Callable[[str], str]
) -> None:
    contents(machine(url), export)
    system, root = fsspec.core.url_to_fs(url)
    (path,) = system.find(f"{root}/actions")
    system.pipe_file(path, change(system.cat_file(path).decode()).encode())
    two = machine(url)
    assert contents(two, export) == ("nowhere", FILES)
    assert [text for text in two.warnings() if "record" in text]
    assert contents(machine(url)) == ("remote", FILES)


@pytest.mark.parametrize("path", ["../../outside", "/outside", "a/../../outside", ""])
def test_a_record_cannot_lead_out_of_its_directory(machine: Machine, url: str, path: str) -> None:
    """Not even one whose digests are right."""
    from ortc.common.values import digest

    contents(machine(url), export)
    system, root = fsspec.core.url_to_fs(url)
    (place,) = system.find(f"{root}/actions")
    document = json.loads(system.cat_file(place))
    del document["sha256"]
    document["files"][0]["path"] = path
    system.pipe_file(place, json.dumps({**document, "sha256": digest(document)}).encode())
    store = machine(url)
    assert contents(store, export)[0] == "nowhere"
    assert "cannot be used" in next(store.warnings())


def test_a_cache_that_takes_nothing(machine: Machine, broken: dict[str, Callable[[], object]]) -> None:
    contents(machine("broken://cache"), export)
    broken["write"] = failing(PermissionError(13, "Permission denied"))
    store = machine("broken://cache")
    # What is there can be read.
    assert contents(store)[0] == "remote"
    assert [store.run("verify", {"x": x}, lambda _: {}).found for x in (1, 2)] == ["nowhere", "nowhere"]
    (warning,) = store.warnings()
    assert "takes no results, which stay on this machine: Permission denied" in warning
    assert store.run("verify", {"x": 1}, fail).found == "here"


class DriverError(Exception):
    """What a driver's own library raises: no OSError."""


@pytest.mark.parametrize("operation", ["info", "read"])
@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(111, "Connection refused"), DriverError("no credentials"), TimeoutError("slow")]
)
def test_a_cache_that_cannot_be_reached(
    machine: Machine, broken: dict[str, Callable[[], object]], operation: str, error: Exception
) -> None:
    calls: list[int] = []

    def refuse() -> NoReturn:
        calls.append(1)
        raise error

    # What is not there is not read.
    contents(machine("broken://cache"), export)
    broken[operation] = refuse
    store = machine("broken://cache")
    assert contents(store, export) == ("nowhere", FILES)
    assert store.run("verify", {"x": 1}, lambda _: {}).found == "nowhere"
    assert len(calls) == 1, "one failure is enough"
    (warning,) = store.warnings()
    assert "broken://cache cannot be reached, the build goes on without it" in warning
    assert contents(store)[0] == "here"


def test_a_cache_that_does_not_answer(
    machine: Machine, broken: dict[str, Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "PATIENCE", 0.05)
    answer = threading.Event()
    broken["info"] = answer.wait
    store = machine("broken://cache")
    assert contents(store, export)[0] == "nowhere"
    answer.set()
    assert "no answer in" in next(store.warnings())


def test_this_machines_full_disk_is_not_the_remote_caches_fault(
    machine: Machine, broken: dict[str, Callable[[], object]]
) -> None:
    contents(machine("broken://cache"), export)
    broken["read"] = failing(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        contents(machine("broken://cache"))


def test_writers_at_once(machine: Machine, url: str) -> None:
    """Machines that do the same at the same time leave one whole entry."""
    started = threading.Barrier(6)

    def build(store: Store) -> list[str]:
        started.wait()
        for x in range(5):
            store.run("export", {"x": x}, export)
        return list(store.warnings())

    with ThreadPoolExecutor(6) as pool:
        said = [warning for found in pool.map(build, [machine(url) for _ in range(6)]) for warning in found]
    if url.startswith("memory:"):
        # Readers of fsspec's memory share one position and see what is half written; the digests say so.
        said = [warning for warning in said if " is damaged " not in warning]
    assert said == []
    # Five records and two blobs, nothing half or beside.
    assert len(names(url)) == 7
    store = machine(url)
    assert [store.run("export", {"x": x}, fail).found for x in range(5)] == ["remote"] * 5


def test_threads_of_one_machine_fetch_once(machine: Machine, broken: dict[str, Callable[[], object]]) -> None:
    contents(machine("broken://cache"), export)
    store, started = machine("broken://cache"), threading.Barrier(4)

    def run(_: int) -> str:
        started.wait()
        return contents(store)[0]

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(run, range(4))) == ["here", "here", "here", "remote"]


@pytest.mark.parametrize(("url", "reason"), [("nowhere://x", "Protocol not known: nowhere"), ("x::y://", "Protocol")])
def test_a_place_that_cannot_be(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RemoteCache(url)


def test_a_place_whose_driver_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"class": "ortc_no_such_package.System", "err": "Install ortc-driver to access it"}
    monkeypatch.setitem(known_implementations, "undriven", known)
    with pytest.raises(ValueError, match="Install ortc-driver"):
        RemoteCache("undriven://x")


def test_passwords_are_not_told() -> None:
    assert "hunter2" not in RemoteCache("memory://user:hunter2@host/x").name
    with pytest.raises(ValueError, match="Protocol") as caught:
        RemoteCache("nowhere://user:hunter2@host/x")
    assert "hunter2" not in str(caught.value)
