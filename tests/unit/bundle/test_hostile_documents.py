"""Documents of a bundle that somebody else wrote: values that cannot be are refused, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import seal, write_json
from tests.support.keys import Keys, write_keys
from tests.support.measurements import NAME, Write
from tests.support.whole_bundles import whole_bundle

from ortc.bundle.attach import attach
from ortc.bundle.delivery.manifests import emit
from ortc.bundle.delivery.pack import pack
from ortc.bundle.manifest import LAST_STAMP
from ortc.bundle.publish import stamp
from ortc.bundle.supply_chain.signing import BUNDLE_SIGNATURE, SignatureError, sign, verify
from ortc.common.errors import OrtcError, StageError
from ortc.registry.documents import BundleRecord
from ortc.registry.store import Registry
from ortc.registry.views import view

HUGE = 10**400
Where = tuple[str | int, ...]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return write_keys(tmp_path_factory.mktemp("keys"))


def put(place: Path, path: Where, value: object) -> None:
    """Set a value of a document."""
    document: Any = json.loads(place.read_bytes())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    write_json(place, document)


def names(bundle: Path) -> set[str]:
    return {path.relative_to(bundle).as_posix() for path in bundle.rglob("*")}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("session_options",), {}),
        (("session_options", "graph_optimization_level"), "most"),
        (("threads", "intra_op"), HUGE),
        (("threads", "inter_op"), -1),
        (("providers",), None),
    ],
)
def test_sessions(bundle: Path, write: Write, path: Where, value: object) -> None:
    put(bundle / "session.json", path, value)
    seal(bundle)
    for use in (lambda: emit(bundle, ["triton"]), lambda: attach(bundle, write())):
        with pytest.raises(StageError, match=rf"session\.json is not of a format .*`{path[0]}"):
            use()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("stamp",), 10**30),
        (("stamp",), -1),
        (("model", "bytes"), HUGE),
        (("axes", 0, "max"), HUGE),
        (("axes", 0, "min"), -5),
        (("inputs", 0, "shape"), [HUGE]),
        (("platforms",), []),
        (("platforms",), ["linux"]),
        (("promises", "at"), {"batch": HUGE}),
    ],
)
def test_manifests(bundle: Path, write: Write, keys: Keys, tmp_path: Path, path: Where, value: object) -> None:
    measurement = write()
    put(bundle / "manifest.json", path, value)
    before = names(bundle)
    for use in (
        lambda: emit(bundle, ["k8s", "triton"]),
        lambda: pack(bundle, tmp_path / "packed", ["tar", "oci"]),
        lambda: sign(bundle, keys[0]),
        lambda: attach(bundle, measurement),
    ):
        with pytest.raises(StageError, match=rf"manifest\.json is not of a format .*`{path[0]}"):
            use()
    assert names(bundle) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("numbers", "peak_rss_bytes"), HUGE),
        (("numbers", "peak_rss_bytes"), -(10**30)),
        (("numbers", "start_seconds", "value"), 1e308),
        (("numbers", "start_seconds", "value"), float("nan")),
        (("host", "cores"), HUGE),
        (("race", "threads"), HUGE),
        (("verdicts",), 5),
        (("verdicts",), [{}]),
    ],
)
def test_measurements(bundle: Path, write: Write, keys: Keys, path: Where, value: object) -> None:
    put(next((bundle / "measurements").glob("*.json")), path, value)
    before = names(bundle)
    for use in (lambda: emit(bundle, ["k8s"]), lambda: sign(bundle, keys[0]), lambda: attach(bundle, write())):
        with pytest.raises(StageError, match=rf"is no measurement that this ortc reads: `{path[0]}"):
            use()
    assert names(bundle) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"peak_device_bytes": HUGE},
        {"rounds": [[1e308] * 20] * 5},
        {"rounds": [[5e-324] * 20] * 5},
        {"starts": [1e308] * 5},
        {"copies": {"a": HUGE}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_measurements_to_attach(bundle: Path, write: Write, changes: dict[str, Any]) -> None:
    before = names(bundle)
    with pytest.raises(StageError, match=rf"is no measurement that this ortc reads: {next(iter(changes))}"):
        attach(bundle, write(**changes))
    assert names(bundle) == before


@pytest.mark.parametrize("measured", ["2020-01-01T00:00:00", None, "yesterday"])
def test_an_attached_measurement_without_a_time(bundle: Path, write: Write, measured: object) -> None:
    attach(bundle, write())
    put(bundle / NAME, ("attached", "measured"), measured)
    with pytest.raises(StageError, match=r"`attached\.measured`"):
        attach(bundle, write(milliseconds=3.0))


@pytest.mark.parametrize("value", ["9" * 5000, str(LAST_STAMP + 1), "-1", "\u0661"])
def test_stamps_of_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(StageError, match="SOURCE_DATE_EPOCH is"):
        stamp()


def test_signatures_that_are_nested_deeply(bundle: Path, keys: Keys) -> None:
    sign(bundle, keys[0])
    for place in (bundle / BUNDLE_SIGNATURE, next((bundle / "attestations/measurements").glob("*.sig"))):
        written = place.read_bytes()
        for text in ("[" * 200_000, '{"dsseEnvelope":' * 100_000, "null"):
            place.write_text(text)
            with pytest.raises(SignatureError, match="was changed, or made with another key"):
                verify(bundle, keys[1])
        place.write_bytes(written)
    verify(bundle, keys[1])


@pytest.mark.parametrize(
    "name",
    [
        *(f"measurements/{name}" for name in ("sub/x.json", ".json", "a.b.json", "x.sig", "notes.txt")),
        *("attestations/notes.txt", "attestations/measurements/gone.sig"),
    ],
)
def test_nothing_is_signed_that_does_not_verify(bundle: Path, keys: Keys, name: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("{}")
    with pytest.raises(OrtcError) as caught:
        sign(bundle, keys[0])
    assert caught.value.exit_code > 1
    assert not (bundle / BUNDLE_SIGNATURE).exists()


def test_records_without_their_manifest(tmp_path: Path, keys: Keys) -> None:
    bundle = whole_bundle(tmp_path / "bundle")
    sign(bundle, keys[0])
    registry = Registry(str(tmp_path / "registry"))
    registry.add(bundle)
    place = next((tmp_path / "registry/models/linear/bundles").iterdir())
    record = BundleRecord.read(place.read_bytes())
    without = tuple(file for file in record.files if file.path != "manifest.json")
    for files in (without, (*record.files, record.files[0])):
        place.write_bytes(record.model_copy(update={"files": files}).content())
        with pytest.raises(StageError, match="cannot be used"):
            view(registry, "linear", keys[1])
