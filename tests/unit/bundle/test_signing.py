"""Signatures: one bit changed anywhere is named, measurements join and are signed apart, nothing can be moved."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bundles import runtime_module
from tests.support.examples import examples
from tests.support.flipped_bits import every_bit, files
from tests.support.keys import Keys, write_keys
from tests.support.whole_bundles import add_measurement, whole_bundle

from ortc.__main__ import run
from ortc.bundle.delivery.manifests import emit
from ortc.bundle.supply_chain.signing import BUNDLE_SIGNATURE, PASSWORD, SignatureError, sign, verify
from ortc.common.errors import OrtcError, StageError, UsageError
from ortc.execution.action_record import KeptFile
from ortc.registry.aliases import promote
from ortc.registry.catalogue import companions_path, identity
from ortc.registry.contents import blob
from ortc.registry.documents import now
from ortc.registry.retrieval import retrieve
from ortc.registry.store import Registry
from ortc.registry.views import view


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return write_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """A signed bundle, not to be changed."""
    bundle = whole_bundle(tmp_path_factory.mktemp("signed") / "cpu")
    sign(bundle, keys[0])
    return bundle


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "elsewhere"))


def test_a_signed_bundle_is_accepted_wherever_it_lies(bundle: Path, keys: Keys) -> None:
    found = verify(bundle, keys[1])
    covered = {*found.files, *found.measurements}
    assert set(files(bundle)) - covered == {path for path in files(bundle) if path.endswith(".sig")}
    assert found.unsigned_measurements == ()
    assert len(found.measurements) == 1


def test_one_flipped_bit_in_any_file_is_named(bundle: Path, keys: Keys) -> None:
    tried = set()
    for index, (name, byte) in enumerate(every_bit(bundle)):
        content = (bundle / name).read_bytes()
        changed = bytearray(content)
        changed[byte] ^= 1 << (index % 8)
        (bundle / name).write_bytes(changed)
        with pytest.raises(OrtcError) as caught:
            verify(bundle, keys[1])
        # A flip in one of the two lists can name the file whose digest it was.
        assert name in str(caught.value) or name in ("SHA256SUMS", "manifest.json"), (name, byte, str(caught.value))
        assert caught.value.exit_code != 0
        (bundle / name).write_bytes(content)
        tried.add(name)
    assert tried == set(files(bundle))
    verify(bundle, keys[1])


@given(byte=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bit_of_a_signature_is_free(bundle: Path, keys: Keys, byte: int, bit: int) -> None:
    place = bundle / BUNDLE_SIGNATURE
    content = place.read_bytes()
    changed = bytearray(content)
    changed[byte % len(content)] ^= 1 << bit
    place.write_bytes(changed)
    try:
        with pytest.raises(SignatureError, match=r"attestations/bundle\.sig"):
            verify(bundle, keys[1])
    finally:
        place.write_bytes(content)


def test_another_key_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="another key"):
        verify(bundle, write_keys(tmp_path)[1])


def test_a_measurement_may_join(bundle: Path, keys: Keys) -> None:
    measured = add_measurement(bundle, cores=8)
    found = verify(bundle, keys[1])
    assert found.unsigned_measurements == (f"measurements/{measured.name}",)
    signature = (bundle / BUNDLE_SIGNATURE).read_bytes()
    assert signature
    sign(bundle, keys[0])
    assert verify(bundle, keys[1]).unsigned_measurements == ()
    # Whoever holds the file signed before finds the bundle as it was: its own signature did not come to cover it.
    (bundle / BUNDLE_SIGNATURE).write_bytes(signature)
    assert len(verify(bundle, keys[1]).measurements) == 2


def test_a_signed_measurement_that_goes_is_missed(bundle: Path, keys: Keys) -> None:
    (measured,) = (bundle / "measurements").iterdir()
    measured.unlink()
    with pytest.raises(SignatureError, match=f"{measured.stem}.sig signs a measurement that is missing"):
        verify(bundle, keys[1])


def test_a_measurement_of_another_bundle_is_refused(bundle: Path, keys: Keys, tmp_path: Path) -> None:
    """Its signature is good, and says of which bundle it is."""
    other = whole_bundle(tmp_path / "other", version="2.0.0", seed=5)
    measured = add_measurement(other, p50=0.001)
    sign(other, keys[0])
    for name in (f"measurements/{measured.name}", f"attestations/measurements/{measured.stem}.sig"):
        shutil.copyfile(other / name, bundle / name)
    with pytest.raises(SignatureError, match=rf"{measured.stem}\.sig does not match the bundle.*manifest\.json"):
        verify(bundle, keys[1])


def test_one_signature_does_not_stand_for_another(bundle: Path, keys: Keys) -> None:
    (measured,) = (bundle / "attestations" / "measurements").iterdir()
    shutil.copyfile(measured, bundle / BUNDLE_SIGNATURE)
    with pytest.raises(SignatureError, match=r"bundle\.sig does not match the bundle: .*Extra files"):
        verify(bundle, keys[1])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("attestations/extra.json", "neither signed nor a signature"),
        ("attestations/measurements/deep/x.sig", "neither signed nor a signature"),
        ("runtime/__pycache__/loader.cpython-312.pyc", r"runtime/__pycache__ is not signed, and Python would run"),
        (".gitignore", r"\.gitignore is in the bundle and not in manifest\.json"),
    ],
)
def test_a_file_too_many(bundle: Path, keys: Keys, name: str, told: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("")
    with pytest.raises(OrtcError, match=told):
        verify(bundle, keys[1])


@pytest.mark.parametrize("name", ["attestations/bundle.sig", "attestations/provenance.intoto.json", "session.json"])
def test_a_file_too_few(bundle: Path, keys: Keys, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(OrtcError, match=name):
        verify(bundle, keys[1])


def test_a_damaged_bundle_is_not_signed(bundle: Path, keys: Keys) -> None:
    (bundle / "session.json").write_text("{}")
    with pytest.raises(StageError, match="damaged"):
        sign(bundle, keys[0])


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_other_curves(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    bundle, keys = whole_bundle(tmp_path / "cpu"), write_keys(tmp_path / "keys", curve)
    sign(bundle, keys[0])
    verify(bundle, keys[1])


def test_a_key_with_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, keys = whole_bundle(tmp_path / "cpu"), write_keys(tmp_path / "keys", password=b"secret")
    with pytest.raises(UsageError, match="no private key that can sign"):
        sign(bundle, keys[0])
    monkeypatch.setenv(PASSWORD, "secret")
    sign(bundle, keys[0])
    verify(bundle, keys[1])


def test_keys_that_are_none(bundle: Path, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    unsupported = write_keys(tmp_path / "k1", ec.SECP256K1())
    for key in (tmp_path / "no.pem", keys[1], unsupported[0]):
        with pytest.raises(UsageError, match="no private key that can sign"):
            sign(bundle, key)
    for key in (tmp_path / "no.pem", keys[0], unsupported[1]):
        with pytest.raises(UsageError, match="no public key"):
            verify(bundle, key)


def test_without_the_extra(bundle: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UsageError, match="signatures need the package `model_signing`") as caught:
        verify(bundle, keys[1])
    assert "ortc[sign]" in str(caught.value.help)


def test_the_command_line(tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = whole_bundle(tmp_path / "cpu")
    assert run(["verify", str(bundle), "--key", str(keys[1])]) == 5
    assert "not signed" in capsys.readouterr().err
    assert run(["sign", str(bundle), "--key", str(keys[0])]) == 0
    assert "of measurements/\n  measurements/" in capsys.readouterr().out
    assert run(["verify", str(bundle), "--key", str(keys[1]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format_version"] == 1
    assert document["unsigned_measurements"] == []
    (bundle / "model" / "model.onnx").write_bytes(b"other")
    assert run(["verify", str(bundle), "--key", str(keys[1])]) == 4
    assert "model/model.onnx" in capsys.readouterr().err


def registry_with(tmp_path: Path, *bundles: Path) -> Registry:
    found = Registry(str(tmp_path / "registry"))
    for bundle in bundles:
        found.add(bundle)
    return found


def limits(bundle: Path, tmp_path: Path, **options: Any) -> tuple[str, list[str]]:
    """What `ortc emit` writes for Kubernetes, and what it says."""
    said: list[str] = []
    (path,) = emit(bundle, ("k8s",), output=tmp_path / "emitted", say=said.append, **options)
    return path.read_text("utf-8"), said


def replaced(bundle: Path, **numbers: float) -> Path:
    """Other numbers under the name of the measurement that the bundle has."""
    (place,) = (path for path in (bundle / "measurements").iterdir() if path.suffixes == [".json"])
    document = json.loads(place.read_bytes())
    document["numbers"] |= numbers
    place.write_text(json.dumps(document))
    return place


@pytest.mark.parametrize("with_key", [False, True])
def test_a_forged_measurement_decides_no_deployment(bundle: Path, keys: Keys, tmp_path: Path, with_key: bool) -> None:
    options = {"key": keys[1]} if with_key else {}
    honest, said = limits(bundle, tmp_path, **options)
    assert said == []
    forged = add_measurement(bundle, p50=0.001, cores=64)
    document = json.loads(forged.read_bytes())
    document["numbers"]["peak_rss_bytes"] = 2**40
    forged.write_text(json.dumps(document))
    text, said = limits(bundle, tmp_path, **options)
    assert text == honest
    assert len(said) == 1
    assert f"no signature covers measurements/{forged.name}: not used" in said[0]


def test_a_changed_measurement_decides_no_deployment(bundle: Path, keys: Keys, tmp_path: Path) -> None:
    """Its signature is there, and is of what was there before."""
    place = replaced(bundle, peak_rss_bytes=1)
    text, said = limits(bundle, tmp_path)
    assert "not measured on its hardware" in text
    assert place.name in said[0]
    with pytest.raises(SignatureError, match="does not match"):
        limits(bundle, tmp_path, key=keys[1])


def test_a_forged_signature_passes_no_key(bundle: Path, keys: Keys, tmp_path: Path) -> None:
    add_measurement(bundle, p50=0.001, cores=64)
    sign(bundle, write_keys(tmp_path)[0])
    with pytest.raises(SignatureError, match="another key"):
        limits(bundle, tmp_path, key=keys[1])
    with pytest.raises(SignatureError, match="another key"):
        registry_with(tmp_path).add(bundle, key=keys[1])
    registry = registry_with(tmp_path, bundle)
    for use in (view, lambda *arguments: promote(registry, "linear", "production", key=keys[1])):
        with pytest.raises(SignatureError, match="another key"):
            use(registry, "linear", keys[1])
    with pytest.raises(SignatureError, match="another key"):
        retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out", keys[1])
    assert not (tmp_path / "out" / "linear" / "1.0.0" / "cpu").exists()


def test_a_signed_bundle_passes_the_registry_with_its_key(bundle: Path, keys: Keys, tmp_path: Path) -> None:
    registry = registry_with(tmp_path)
    assert registry.add(bundle, key=keys[1]).new
    (found,) = view(registry, "linear", keys[1]).bundles
    assert (found.signed, len(found.performance), found.unsigned) == (True, 1, ())
    assert promote(registry, "linear", "production", key=keys[1]) == "1.0.0"
    verify(retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out", keys[1]), keys[1])


def test_an_unsigned_bundle_passes_no_key(keys: Keys, tmp_path: Path) -> None:
    registry = registry_with(tmp_path, whole_bundle(tmp_path / "cpu"))
    with pytest.raises(SignatureError, match="the bundle is not signed"):
        promote(registry, "linear", "production", key=keys[1])


def test_a_forged_measurement_is_not_registered(bundle: Path, tmp_path: Path) -> None:
    forged = add_measurement(bundle, p50=0.001, cores=64)
    registry = registry_with(tmp_path)
    added = registry.add(bundle)
    assert added.unsigned == (f"measurements/{forged.name}",)
    assert not [path for path in added.companions if forged.stem in path]
    assert [entry.host.cores for entry in view(registry, "linear").bundles[0].performance] == [2]


@pytest.mark.parametrize("under", ["another machine", "the same machine", "the same file"])
def test_a_measurement_that_a_registrys_writer_forged_is_not_listed(
    bundle: Path, keys: Keys, tmp_path: Path, under: str
) -> None:
    registry = registry_with(tmp_path, bundle)
    record = registry.record("linear", "1.0.0", "cpu")
    assert record is not None
    (honest,) = (entry for entry in registry.companions(record) if entry.performance is not None)
    forged = replaced(bundle, peak_rss_bytes=1) if under == "the same machine" else add_measurement(bundle, cores=64)
    content = forged.read_bytes()
    told = honest.performance.model_copy(update={"verdicts": {"fail": 9}})  # type: ignore[union-attr]
    kept = honest.file
    if under != "the same file":
        sha256 = hashlib.sha256(content).hexdigest()
        path = f"measurements/{forged.name}"
        kept = KeptFile(path=path, sha256=sha256, bytes=len(content), mode=0o644)
        registry.storage.put(blob(sha256), content)
    document = honest.model_copy(update={"file": kept, "performance": told, "registered": now()})
    registry.storage.create(f"{companions_path(*identity(record))}/ffff.json", document.content())
    (found,) = view(registry, "linear").bundles
    assert [entry.verdicts for entry in found.performance] == ([] if under == "the same machine" else [{"pass": 1}])
    assert found.unsigned == (() if under == "the same file" else (kept.path,))
    # A verdict that nobody signed neither lets a version pass nor stops it.
    assert promote(registry, "linear", "production") == "1.0.0"
    place = retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out")
    assert not found.unsigned or not (place / kept.path).exists()
    if under == "another machine":
        verify(place, keys[1])


def test_a_forged_measurement_is_not_compared(bundle: Path, tmp_path: Path) -> None:
    from ortc.diff.bundles import Bundle
    from ortc.diff.latency import timings

    forged = add_measurement(bundle, p50=0.001, cores=64)
    said: list[str] = []
    found = timings(Bundle(bundle), Bundle(bundle), said.append)
    assert [entry.cores for entry in found] == [2]
    assert all(forged.name in line for line in said)
    assert len(said) == 2


def test_a_server_reads_no_forged_measurement(bundle: Path) -> None:
    catalogue = runtime_module("serving.catalogue")
    (honest,) = catalogue.measurements(bundle)
    forged = add_measurement(bundle, p50=0.001, cores=64)
    assert catalogue.measurements(bundle) == [honest]
    forged.unlink()
    replaced(bundle, peak_device_bytes=1)
    assert catalogue.measurements(bundle) == []
    (bundle / "attestations/bundle.sig").unlink()
    assert len(catalogue.measurements(bundle)) == 1


@pytest.mark.parametrize("expected", ["linear@2.0.0", "other@1.0.0", "linear/edge", "other", "linear@1.0.0/edge"])
def test_an_old_version_with_a_right_signature_is_not_another_one(
    bundle: Path, keys: Keys, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(bundle), "--key", str(keys[1]), "--expect", expected]) == StageError.exit_code
    told = capsys.readouterr()
    assert told.out == ""
    assert "is not the bundle that was asked for: its " in told.err
    # Without a key: before the bundle's own loader runs, and before an environment is made for it.
    assert run(["verify", str(bundle), "--expect", expected]) == StageError.exit_code


@pytest.mark.parametrize("expected", ["linear", "linear@1.0.0", "linear/cpu", "linear@1.0.0/cpu"])
def test_the_expected_bundle_is_accepted(
    bundle: Path, keys: Keys, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(bundle), "--key", str(keys[1]), "--expect", expected]) == 0
    assert "files of linear@1.0.0/cpu are as they were signed" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "@1.0.0", "linear@", "linear/", "linear@1.0.0/", "Linear", "a b", "linear@1/c/d"])
def test_what_names_no_bundle_is_refused(bundle: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(bundle), "--expect", text]) == UsageError.exit_code
    assert "expected NAME[@VERSION][/TARGET]" in capsys.readouterr().err


def test_the_librarys_own_verification_agrees(bundle: Path, keys: Keys) -> None:
    """What others verify with, without ortc."""
    from model_signing import hashing, verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=keys[1]).set_ignore_unsigned_files(True)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False))
    config.verify(bundle, bundle / BUNDLE_SIGNATURE)
    (bundle / "session.json").write_text("{}")
    with pytest.raises(ValueError, match=r"session\.json"):
        config.verify(bundle, bundle / BUNDLE_SIGNATURE)
