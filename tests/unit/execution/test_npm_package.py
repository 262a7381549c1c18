"""Files of npm packages are the pinned ones, or there are none."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from ortc.common.errors import StageError
from ortc.execution import npm_package as module
from ortc.execution.npm_package import PinnedFiles, check_integrity, package_files, package_place
from ortc.execution.runtime_environment import MARKER

SCRIPT = b"export const answer = 42;\n"


def archive_of(place: Path, content: bytes = SCRIPT) -> Path:
    file = place / "small-1.0.0.tgz"
    with tarfile.open(file, "w:gz") as tar:
        for name, data in (("package/dist/small.mjs", content), ("package/README.md", b"unused")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def pinned(archive: Path, content: bytes = SCRIPT) -> PinnedFiles:
    integrity = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    return PinnedFiles("small", "1.0.0", f"sha512-{integrity}", {"dist/small.mjs": hashlib.sha256(content).hexdigest()})


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What npm brings, without npm."""
    source = archive_of(tmp_path)

    def run_tool(arguments: list[str], purpose: str, help: str = "") -> None:  # noqa: A002
        assert arguments[:2] == ["npm", "pack"]
        assert arguments[-1] == "small@1.0.0"
        destination = Path(arguments[arguments.index("--pack-destination") + 1])
        (destination / source.name).write_bytes(source.read_bytes())

    monkeypatch.setattr(module, "run_tool", run_tool)
    monkeypatch.setattr(module.shutil, "which", lambda _: "/usr/bin/npm")
    return source


def test_pinned_files_alone_are_kept(fetched: Path, tmp_path: Path) -> None:
    told: list[int] = []
    root = tmp_path / "environments"
    place = package_files(pinned(fetched), root, on_make=lambda: told.append(1))
    assert package_files(pinned(fetched), root, on_make=lambda: told.append(1)) == place
    assert told == [1]
    assert package_place(pinned(fetched), root) == (place, True)
    files = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}
    assert files == {"dist/small.mjs", MARKER}
    assert (place / "dist" / "small.mjs").read_bytes() == SCRIPT


def test_another_archive_is_refused(fetched: Path, tmp_path: Path) -> None:
    wanted = pinned(fetched)._replace(integrity="sha512-AAAA")
    with pytest.raises(StageError, match="expected sha512-AAAA"):
        package_files(wanted, tmp_path / "environments")
    with pytest.raises(StageError, match="expected sha512-AAAA"):
        check_integrity(fetched, wanted)
    assert not package_place(wanted, tmp_path / "environments")[1]


def test_a_file_of_another_digest_is_refused(fetched: Path, tmp_path: Path) -> None:
    for files in ({"dist/small.mjs": "0" * 64}, {"dist/missing.mjs": hashlib.sha256(SCRIPT).hexdigest()}):
        wanted = pinned(fetched)._replace(files=files)
        with pytest.raises(StageError, match="is not the pinned file"):
            package_files(wanted, tmp_path / "environments")
        assert not package_place(wanted, tmp_path / "environments")[1]


def test_a_cached_file_that_changed_is_refused(fetched: Path, tmp_path: Path) -> None:
    place = package_files(pinned(fetched), tmp_path / "environments")
    (place / "dist" / "small.mjs").write_bytes(SCRIPT.replace(b"42", b"43"))
    with pytest.raises(StageError, match="is not as it was fetched"):
        package_files(pinned(fetched), tmp_path / "environments")


def test_without_npm_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    with pytest.raises(StageError) as caught:
        package_files(PinnedFiles("small", "1.0.0", "sha512-", {}), tmp_path)
    assert "apt-get install npm" in (caught.value.help or "")
