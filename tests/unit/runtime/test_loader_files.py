"""What the loader says about bundles whose files are not those that were published."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import bundles

loader = bundles.runtime_module("loader")
files_module = bundles.runtime_module("loading.files")
opening = bundles.runtime_module("loading.opening")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.linear().write(tmp_path / "bundle")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def load(bundle: Path, verify: str = "full") -> None:
    loader.Model.load(bundle, verify=verify).close()


@pytest.mark.parametrize("verify", ["full", "fast", "none"])
def test_a_bundle_as_published_loads(bundle: Path, verify: str) -> None:
    load(bundle, verify)


@pytest.mark.parametrize(
    "name",
    [
        "model/model.onnx",
        "golden/0.inputs.npz",
        "golden/1.outputs.npz",
        "session.json",
        "manifest.json",
        "requirements.txt",
        "runtime/loader.py",
        "runtime/server.py",
        "runtime/machine.py",
    ],
)
def test_full_names_the_file_with_a_flipped_byte(bundle: Path, name: str) -> None:
    flip(bundle / name)
    os.utime(bundle / name, (bundles.STAMP, bundles.STAMP))  # as somebody would who wants it not to show
    with pytest.raises(loader.DigestError, match=name) as caught:
        load(bundle)
    assert (caught.value.code, caught.value.exit_code) == ("digest-mismatch", 4)


Swap = Callable[[Path], None]


def write_in_place(bundle: Path) -> None:
    """The same size and time as before."""
    path = bundle / "model/model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, (bundles.STAMP, bundles.STAMP))


def replace_file(bundle: Path, name: str = "model/model.onnx") -> None:
    path = bundle / name
    other = bundle.parent / "other"
    other.write_bytes(path.read_bytes())
    os.utime(other, (bundles.STAMP, bundles.STAMP))
    other.rename(path)


def swap_and_swap_back(bundle: Path) -> None:
    path, aside = bundle / "model/model.onnx", bundle.parent / "aside"
    path.rename(aside)
    path.write_bytes(b"another model, which is opened meanwhile")
    path.unlink()
    aside.rename(path)


def swap_directory_and_back(bundle: Path) -> None:
    (bundle / "model").rename(bundle.parent / "aside")
    shutil.copytree(bundle.parent / "aside", bundle / "model")
    shutil.rmtree(bundle / "model")
    (bundle.parent / "aside").rename(bundle / "model")


def swap_bundle_and_back(bundle: Path) -> None:
    aside = bundle.with_name("whole")
    bundle.rename(aside)
    aside.rename(bundle)


def remove_file(bundle: Path) -> None:
    (bundle / "model/model.onnx").unlink()


@pytest.mark.parametrize("verify", ["full", "fast"])
@pytest.mark.parametrize(
    "swap",
    [
        write_in_place,
        replace_file,
        swap_and_swap_back,
        swap_directory_and_back,
        swap_bundle_and_back,
        remove_file,
        partial(replace_file, name="session.json"),
        partial(replace_file, name="golden/0.outputs.npz"),
    ],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_swap_between_verification_and_load_is_refused(
    bundle: Path, verify: str, swap: Swap, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime opens the file by its path, a moment after its bytes were hashed."""
    create = opening.create_session

    def attacked(ort: object, model: Path, *arguments: Any, **options: Any) -> Any:
        # What is opened is the whole model in any case, so that only the comparison can tell.
        kept = bundle.parent / "kept.onnx"
        shutil.copyfile(model, kept)
        if not after:
            swap(bundle)
        session = create(ort, kept, *arguments, **options)
        if after:
            swap(bundle)
        return session

    monkeypatch.setattr(opening, "create_session", attacked)
    with pytest.raises(loader.DigestError, match="was changed or replaced while the bundle was loaded"):
        load(bundle, verify)


def test_swapped_external_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = bundles.text()
    recipe.external_data = True
    bundle = recipe.write(tmp_path / "bundle")
    create = opening.create_session

    def attacked(*arguments: Any, **options: Any) -> Any:
        replace_file(bundle, "model/model.onnx.data")
        return create(*arguments, **options)

    monkeypatch.setattr(opening, "create_session", attacked)
    with pytest.raises(loader.DigestError, match=r"model\.onnx\.data|model was changed"):
        load(bundle)
    with pytest.raises(loader.DigestError):
        load(bundle, "fast")


def test_a_manifest_that_is_swapped_after_it_was_hashed_is_not_read(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once: the bytes that were hashed are those that are parsed."""
    reads: list[Path] = []
    read = files_module.read_plain

    def counted(path: Path) -> bytes:
        reads.append(path)
        content: bytes = read(path)
        return content

    monkeypatch.setattr(files_module, "read_plain", counted)
    files_module.read_manifest(bundle, "full")
    assert reads.count(bundle / "manifest.json") == 1


def test_what_joins_a_bundle_meanwhile_is_no_swap(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("measurements", "attestations"):
        (bundle / name).mkdir()
    create = opening.create_session

    def attached(*arguments: Any, **options: Any) -> Any:
        (bundle / "measurements/0.json").write_text("{}")
        (bundle / "runtime/__pycache__").mkdir(exist_ok=True)
        return create(*arguments, **options)

    monkeypatch.setattr(opening, "create_session", attached)
    load(bundle)


def test_external_weights_are_loaded_and_verified(tmp_path: Path) -> None:
    recipe = bundles.text()
    recipe.external_data = True
    bundle = recipe.write(tmp_path / "bundle")
    assert (bundle / "model/model.onnx.data").stat().st_size >= 50 * 8 * 4
    load(bundle)
    flip(bundle / "model/model.onnx.data")
    with pytest.raises(loader.DigestError, match=r"model/model\.onnx\.data"):
        load(bundle)


@pytest.mark.parametrize("verify", ["full", "fast"])
@pytest.mark.parametrize(
    "name", ["stray", "model/model.onnx.bak", ".hidden", "golden/measurements/x", "model/attestations/x"]
)
def test_a_file_too_many_is_named(bundle: Path, verify: str, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("x")
    with pytest.raises(loader.FilesError, match=name):
        load(bundle, verify)


def test_measurements_and_bytecode_may_come_and_go(bundle: Path) -> None:
    for name in (
        "measurements/x.json",
        "attestations/bundle.sig",
        "runtime/__pycache__/loader.pyc",
        "__pycache__/x.pyc",
    ):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text("x")
    load(bundle)


@pytest.mark.parametrize("verify", ["full", "fast"])
@pytest.mark.parametrize("name", ["model/model.onnx", "golden/0.inputs.npz", "session.json", "SHA256SUMS"])
def test_a_missing_file_is_named(bundle: Path, verify: str, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(loader.FilesError, match=name) as caught:
        load(bundle, verify)
    assert caught.value.code == "files"


def test_a_directory_in_the_place_of_a_file_counts_as_missing(bundle: Path) -> None:
    (bundle / "requirements.txt").unlink()
    (bundle / "requirements.txt").mkdir()
    with pytest.raises(loader.FilesError, match=r"requirements\.txt"):
        load(bundle)


def test_fast_trusts_the_stamp_and_hashes_what_has_another_time(bundle: Path) -> None:
    os.utime(bundle / "requirements.txt", (1, 1))
    load(bundle, "fast")  # copied without its time, and the same
    flip(bundle / "requirements.txt")
    with pytest.raises(loader.DigestError, match=r"requirements\.txt"):
        load(bundle, "fast")
    os.utime(bundle / "requirements.txt", (bundles.STAMP, bundles.STAMP))
    load(bundle, "fast")


def test_fast_sees_another_size(bundle: Path) -> None:
    with (bundle / "requirements.txt").open("a") as file:
        file.write("\n")
    os.utime(bundle / "requirements.txt", (bundles.STAMP, bundles.STAMP))
    with pytest.raises(loader.DigestError, match=r"requirements\.txt has \d+ bytes, manifest\.json says \d+"):
        load(bundle, "fast")


def test_fast_still_hashes_the_manifest(bundle: Path) -> None:
    flip(bundle / "manifest.json")
    os.utime(bundle / "manifest.json", (bundles.STAMP, bundles.STAMP))
    with pytest.raises(loader.DigestError, match=r"manifest\.json"):
        load(bundle, "fast")


@pytest.mark.parametrize("line", ["", "nonsense", f"{'0' * 64}  model/model.onnx", f"{'0' * 64}  other"])
def test_a_changed_list_of_digests_is_an_error(bundle: Path, line: str) -> None:
    sums = bundle / "SHA256SUMS"
    sums.write_text(sums.read_text() + line + "\n")
    with pytest.raises(loader.DigestError, match="SHA256SUMS"):
        load(bundle)


def test_the_two_lists_must_agree(bundle: Path) -> None:
    sums = bundle / "SHA256SUMS"
    digest = bundles.digest(bundle / "session.json")
    sums.write_text(sums.read_text().replace(digest, "0" * 64))
    with pytest.raises(loader.DigestError, match=r"disagree about session\.json"):
        load(bundle)


@pytest.mark.parametrize("verify", ["full", "none"])
@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "model/../../secret", "", ".", "./model", "a\0b", "a//b"])
def test_paths_that_are_not_plain_are_refused(bundle: Path, verify: str, path: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    bundles.edit_json(bundle / "manifest.json", model=manifest["model"] | {"file": path})
    bundles.seal(bundle)
    with pytest.raises(loader.FilesError):
        load(bundle, verify)


def test_a_listed_path_outside_is_refused_even_when_the_file_is_right(bundle: Path) -> None:
    secret = bundle.parent / "secret"
    secret.write_text("x")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    entry = {"path": "../secret", "sha256": bundles.digest(secret), "bytes": 1}
    bundles.edit_json(bundle / "manifest.json", files=[*manifest["files"], entry])
    lines = [line for line in (bundle / "SHA256SUMS").read_text().splitlines() if "manifest.json" not in line]
    lines += [f"{entry['sha256']}  ../secret", f"{bundles.digest(bundle / 'manifest.json')}  manifest.json"]
    (bundle / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    with pytest.raises(loader.FilesError, match=r"'\.\./secret'"):
        load(bundle)


def test_links_may_not_leave_the_bundle(bundle: Path) -> None:
    outside = bundle.parent / "elsewhere.onnx"
    (bundle / "model/model.onnx").rename(outside)
    (bundle / "model/model.onnx").symlink_to(outside)
    for verify in ("full", "fast", "none"):
        with pytest.raises(loader.FilesError, match=r"model\.onnx is a link to .*elsewhere\.onnx, outside the bundle"):
            load(bundle, verify)


def test_a_linked_directory_is_one_file_too_many(bundle: Path) -> None:
    (bundle / "extra").symlink_to(bundle.parent)
    with pytest.raises(loader.FilesError, match="extra"):
        load(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "format_version is 'list'"),
        (b"{}", "format_version is None"),
        (b'{"format_version": 2}', "format_version is 2, this loader reads 1"),
        (b'{"format_version": 1}', "kind is None"),
        (b'{"format_version": 1, "kind": "ortc-bundle"}', "has no 'name'"),
    ],
)
def test_what_is_no_manifest_is_said_so(bundle: Path, content: bytes, message: str) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(loader.FormatError, match=message) as caught:
        load(bundle, "none")
    assert caught.value.code == "format"


@pytest.mark.parametrize("key", ["name", "inputs", "outputs", "axes", "model", "runtime", "golden", "files", "stamp"])
@pytest.mark.parametrize("value", [None, "x", 3, [3]])
def test_a_malformed_manifest_is_a_format_error(bundle: Path, key: str, value: object) -> None:
    bundles.edit_json(bundle / "manifest.json", **{key: value})
    lines = [line for line in (bundle / "SHA256SUMS").read_text().splitlines() if "manifest.json" not in line]
    sums = [*lines, f"{bundles.digest(bundle / 'manifest.json')}  manifest.json"]
    (bundle / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    if key == "name" or (key, value) == ("stamp", 3):  # any name will do; another stamp only means hashing
        load(bundle)
        return
    with pytest.raises(loader.BundleError) as caught:
        load(bundle)
    assert caught.value.code in ("format", "golden", "digest-mismatch")


def test_no_bundle_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(loader.FormatError, match=r"is not a bundle: it has no manifest\.json"):
            load(path)


def test_verify_must_be_a_known_word(bundle: Path) -> None:
    with pytest.raises(loader.UsageError, match="Expected full, fast or none"):
        load(bundle, "quick")


@settings(deadline=None)
@given(st.text(max_size=40))
def test_inside_never_leaves_the_bundle(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        found = files_module.inside(root, path)
    except loader.FilesError:
        return
    assert found.is_relative_to(root)
    assert found != root
    assert ".." not in found.parts


@settings(deadline=None)
@given(st.dictionaries(st.text("abc/._ ", min_size=1), st.lists(st.integers(-5, 5)), max_size=4))
def test_npz_files_keep_every_name(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, list[int]]) -> None:
    import numpy as np

    path = tmp_path_factory.getbasetemp() / "names.bin"
    sent = {name: np.array(values, dtype=np.int64) for name, values in {**arrays, "file": [1]}.items()}
    loader.write_npz(path, sent)
    found = loader.read_npz(path)
    assert sorted(found) == sorted(sent)
    assert all((found[name] == sent[name]).all() for name in sent)
