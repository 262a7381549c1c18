"""Folders for static hosts and archives of npm: files in parts, the same bytes again, and who may have them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from tests.support.whole_bundles import whole_bundle

from ortc.bundle.delivery import script_packages
from ortc.bundle.delivery.pack import pack
from ortc.bundle.manifest import read_bundle
from ortc.bundle.publish import seal
from ortc.common.errors import UsageError

NAME = "linear-1.0.0-cpu"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that says it is for browsers."""
    made = whole_bundle(tmp_path / "web")
    seal(made, read_bundle(made).model_copy(update={"platforms": ("web/wasm",)}))
    return made


def test_files_are_cut_in_parts_that_make_them_whole(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 1000
    monkeypatch.setattr(script_packages, "MOST_BYTES", most)
    folder = tmp_path / "out" / f"{NAME}.static"
    assert pack(bundle, tmp_path / "out", ["static"]).static == str(folder)
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert max(path.stat().st_size for path in found.values()) <= most
    for file in read_bundle(bundle).files:
        parts = -(-file.bytes // most) if file.bytes > most else 0
        names = [f"{file.path}.part{part}" for part in range(parts)] or [file.path]
        assert b"".join(found.pop(name).read_bytes() for name in names) == (bundle / file.path).read_bytes()
    beside = ("manifest.json", "SHA256SUMS", "attestations/", "measurements/")
    assert not [name for name in found if not name.startswith(beside)]


def test_the_archive_of_npm_is_the_same_again(bundle: Path, tmp_path: Path) -> None:
    first, second = (Path(str(pack(bundle, tmp_path / place, ["npm"]).npm)) for place in ("one", "two"))
    assert first.name == f"{NAME}.tgz"
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    document = json.loads((tmp_path / "unpacked" / "package" / "package.json").read_bytes())
    assert (document["name"], document["version"]) == ("linear-web", "1.0.0")
    for file in read_bundle(bundle).files:
        assert (tmp_path / "unpacked" / "package" / file.path).read_bytes() == (bundle / file.path).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [first.name]


@pytest.mark.parametrize(("form", "said"), [("static", "not for browsers"), ("npm", "not for JavaScript")])
def test_bundles_of_servers_are_neither(tmp_path: Path, form: str, said: str) -> None:
    made = whole_bundle(tmp_path / "cpu")
    with pytest.raises(UsageError, match=said):
        pack(made, tmp_path / "out", ["tar", form])
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_file()]
