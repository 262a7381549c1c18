"""Files that somebody else named: pipes, devices and sockets are refused at once, and large files at a bound."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortc.build.lock import read_lock
from ortc.bundle.manifest import read_bundle
from ortc.bundle.measurement import read_measurement
from ortc.common.arrays import read_arrays, read_shapes
from ortc.common.atomic_files import replace_file
from ortc.common.digests import sha256_file
from ortc.common.errors import OrtcError
from ortc.common.file_locks import file_lock
from ortc.common.plain_files import open_plain, read_plain, read_plain_text
from ortc.execution.record_store import Records
from ortc.frontend.mirrors import download
from ortc.frontend.samples.sources import read_samples, samples_digest
from ortc.inspection.external_data import copy, refuse_pointer
from ortc.inspection.inspect_model import inspect
from ortc.inspection.onnx_wire import read_interface
from ortc.plan.checks import check_spec
from ortc.registry.documents import Marker
from ortc.registry.storage import Storage
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.load import load_spec
from ortc.spec.onnx_header import read_header

DIGITS = Path(__file__).parents[3] / "specs" / "digits.yaml"


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(place))


KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a device": lambda place: place.symlink_to("/dev/zero"),
    "a socket": _socket,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of file; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    return str(request.param)


def test_other_kinds_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "odd")
    (tmp_path / "linked").symlink_to("odd")
    for name in ("odd", "linked"):
        for read in (open_plain, read_plain, read_plain_text, sha256_file):
            with pytest.raises(OSError, match=f"it is {kind}, not a plain file"):
                read(tmp_path / name)
        with pytest.raises(OSError, match=f"it is {kind}, not a plain file"):
            replace_file(tmp_path / name, b"text")


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "spec": ("s.yaml", load_spec),
    "measurement": ("m.json", read_measurement),
    "lock": ("ortc.lock", read_lock),
    "manifest": ("manifest.json", lambda path: read_bundle(path.parent)),
    "text samples": ("s.txt", lambda path: samples_digest(path.name, path.parent)),
    "arrays": ("s.npz", lambda path: read_samples(path, None)),
    "arrays between processes": ("a.npz", read_arrays),
    "shapes": ("a.npz", read_shapes),
    "weights": ("m.safetensors", lambda path: refuse_pointer(path, "m")),
    "a file of a mirror": ("m.bin", lambda path: download(f"file://{path}", path.with_name("copy"))),
    "external data": ("d.bin", lambda path: copy(path, path.with_name("copy"))),
    "graph": ("m.onnx", read_interface),
    "header": ("m.onnx", read_header),
    "model of init": ("m.onnx", lambda path: inspect(str(path), path.parent)),
    "registry": ("registry.json", lambda path: Storage(str(path.parent)).read(path.name)),
    "file of a registry": ("f", lambda path: Storage(str(path.parent)).fetch("f", path.with_name("copy"), 8)),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_waits_for_a_pipe_or_reads_a_device(kind: str, reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    KINDS[kind](tmp_path / name)
    with pytest.raises((OrtcError, SpecError, OSError, ValueError)):
        read(tmp_path / name)
    assert not (tmp_path / "copy").exists() or (tmp_path / "copy").stat().st_size == 0


def test_a_record_that_is_a_pipe_is_none(kind: str, tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.place("k").parent.mkdir()
    KINDS[kind](records.place("k"))
    assert records.read("k") is None


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"12345")
    assert read_plain(place, 5) == b"12345"
    with pytest.raises(OSError, match="it has more than 4"):
        read_plain(place, 4)
    with pytest.raises(IsADirectoryError):
        read_plain(tmp_path)
    place.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_plain_text(place)


def test_a_sparse_file_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "m.json").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(OrtcError, match="it has more than"):
        read_measurement(tmp_path / "m.json")


def test_a_registry_file_of_another_size_is_not_copied_whole(tmp_path: Path) -> None:
    for url in (str(tmp_path / "registry"), "memory://sizes"):
        storage = Storage(url)
        storage.put("f", b"x" * 1000)
        assert storage.fetch("f", tmp_path / "copy", 10)
        assert (tmp_path / "copy").stat().st_size in (0, 11)
        assert storage.fetch("f", tmp_path / "copy", 1000)
        assert (tmp_path / "copy").read_bytes() == b"x" * 1000
        (tmp_path / "copy").unlink()


def test_documents_of_a_registry_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortc.common.remote_files.MOST_DOCUMENT", 100)
    storage = Storage("memory://documents")
    storage.put("registry.json", Marker().content() + b" " * 100)
    with pytest.raises(OrtcError, match="it has more than"):
        storage.read("registry.json")


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The library would try again for ever."""
    with pytest.raises(FileNotFoundError):
        file_lock(Path("/proc/x.lock"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a plain file"):
        file_lock(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"link"):
        file_lock(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
    with file_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").is_file()


@pytest.mark.parametrize(
    ("what", "message"),
    [("a pipe", "`lnk.npz` is a pipe, not a file"), ("a directory", "is a directory without images")],
)
def test_samples_that_are_no_file_are_not_said_to_be_missing(what: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    if what == "a pipe":
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "lnk.npz").symlink_to("fifo")
    else:
        (tmp_path / "lnk.npz").mkdir()
    (tmp_path / "s.yaml").write_text(DIGITS.read_text().replace("examples/digits/samples.npz", "lnk.npz"))
    with pytest.raises(SpecError) as caught:
        check_spec(tmp_path / "s.yaml")
    told = [f"{entry.message} {entry.label}" for entry in caught.value.diagnostics]
    assert [text for text in told if message in text]
    assert not [text for text in told if "did you mean `lnk.npz`" in text]


def test_names_that_no_file_can_have_are_missing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    text = DIGITS.read_text().replace("examples/digits/samples.npz", "a" * 300 + ".npz")
    (tmp_path / "s.yaml").write_text(text.replace("examples/digits/weights.safetensors", "b" * 300 + ".safetensors"))
    with pytest.raises(SpecError) as caught:
        check_spec(tmp_path / "s.yaml")
    assert {"ORTC301", "ORTC302"} & {entry.code for entry in caught.value.diagnostics}


def test_plain_arrays_are_still_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(2, np.float32))
    assert read_shapes(tmp_path / "a.npz") == {"x": (2,)}
