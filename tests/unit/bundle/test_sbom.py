"""The bill of materials and the provenance: valid by their schemas, complete, and the same for the same bundle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
from tests.support.whole_bundles import HOST, whole_bundle

from ortc.bundle.integrity import own_files
from ortc.bundle.manifest import PROVENANCE, Manifest
from ortc.bundle.supply_chain.provenance import BUILD_TYPE, provenance
from ortc.bundle.supply_chain.sbom import MODEL_REF, SBOM, performance, sbom
from ortc.common.statistics import Interval
from ortc.evaluation.report import Numbers, Verdict
from ortc.spec.runtimes import extras, pins

PACKAGES = pins("onnxruntime").packages(("linux/amd64",))
NUMBERS = Numbers(
    p50_ms=Interval(value=1.5, low=1.25, high=1.75, samples=420),
    p90_ms=Interval(value=2.0, low=1.9, high=2.5, samples=420),
    p99_ms=Interval(value=3.0, low=2.5, high=None, samples=420),
    eager_p50_ms=None,
    speedup=Interval(value=2.5, low=2.25, high=2.75, samples=20),
    start_seconds=Interval(value=0.25, low=None, high=None, samples=5),
    peak_rss_bytes=80_000_000,
)
VERDICT = Verdict(
    gate="latency p99", platform="linux/amd64", outcome="pass", observed="3 ms", limit="<= 20 ms", where="batch=1"
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return whole_bundle(tmp_path / "cpu")


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return Manifest.model_validate_json((bundle / "manifest.json").read_bytes())


def valid(text: str) -> dict[str, Any]:
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(text) is None
    document: dict[str, Any] = json.loads(text)
    assert document["specVersion"] == "1.7"
    return document


def test_the_bill_is_valid_and_complete(bundle: Path, manifest: Manifest) -> None:
    document = valid(sbom(manifest, PACKAGES, bundle))
    by_ref = {component["bom-ref"]: component for component in document["components"]}
    model = by_ref["file:model/model.onnx"]
    digest = hashlib.sha256((bundle / "model" / "model.onnx").read_bytes()).hexdigest()
    assert model["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert by_ref["source:linear.onnx"]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    libraries = {c["name"]: c for c in document["components"] if c["type"] == "library"}
    assert set(libraries) == {package.name for package in PACKAGES}
    onnxruntime = next(package for package in PACKAGES if package.name == "onnxruntime")
    assert libraries["onnxruntime"]["purl"] == f"pkg:pypi/onnxruntime@{onnxruntime.version}"
    wheels = {entry["value"] for entry in libraries["onnxruntime"]["properties"]}
    assert wheels == set(onnxruntime.sha256)
    (dependency,) = (entry for entry in document["dependencies"] if entry["ref"] == MODEL_REF)
    assert set(dependency["dependsOn"]) == set(by_ref)


def test_the_bill_lists_packages_of_extras(bundle: Path, manifest: Manifest) -> None:
    """Those that the server's options install, with every wheel that may be, and none that is there without."""
    wanted = {extra.name: extra.packages(("linux/amd64",)) for extra in extras()}
    assert "grpc" in wanted
    libraries = {c["name"]: c for c in valid(sbom(manifest, PACKAGES, bundle, wanted))["components"]}
    plain = {package.name for package in PACKAGES}
    for name, packages in wanted.items():
        for package in (entry for entry in packages if entry.name not in plain):
            component = libraries[package.name]
            told = {(entry["name"], entry["value"]) for entry in component["properties"]}
            assert component["scope"] == "optional"
            assert ("ortc:extra", name) in told
            assert {value for key, value in told if key == "ortc:wheel-sha256"} == set(package.sha256)
    assert all("scope" not in libraries[name] for name in plain)


def test_the_model_card_tells_interface_and_limits(bundle: Path, manifest: Manifest) -> None:
    changed = manifest.model_copy(
        update={"provisional": True, "fit_to_serve": False, "unfit_reason": "random weights"}
        | {"variant": manifest.variant.model_copy(update={"batch_invariant": False})}
    )
    component = valid(sbom(changed, PACKAGES, bundle))["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    card = component["modelCard"]
    assert card["modelParameters"]["inputs"] == [{"format": "x: float32[batch, 4]"}]
    assert card["modelParameters"]["outputs"] == [{"format": "y: float32[batch, 3]"}, {"format": "label: int64[batch]"}]
    assert card["considerations"]["technicalLimitations"] == [
        "batch from 1 to 16: other sizes are refused",
        "not fit to serve: random weights",
        "provisional: a promise was not measured on the target's hardware",
        "the answer to a request depends on what else is in its batch",
    ]


def test_performance_is_told_of_the_same_model(bundle: Path, manifest: Manifest) -> None:
    bill = valid(sbom(manifest, PACKAGES, bundle))
    document = valid(performance(manifest, HOST.fingerprint(), NUMBERS, [VERDICT]))
    (link,) = document["metadata"]["component"]["externalReferences"]
    assert link == {"type": "bom", "url": f"{bill['serialNumber'].replace('uuid', 'cdx')}/1#{MODEL_REF}"}
    assert document["serialNumber"] != bill["serialNumber"]
    metrics = document["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    told = {entry["type"]: entry for entry in metrics}
    assert told["latency p50 (ms)"]["value"] == "1.5"
    assert told["latency p50 (ms)"]["confidenceInterval"] == {"lowerBound": "1.25", "upperBound": "1.75"}
    assert "confidenceInterval" not in told["latency p99 (ms)"], "too few samples for a bound are no bound"
    assert told["gate latency p99"]["slice"] == "linux/amd64: pass, must be <= 20 ms, batch=1"
    assert told["peak memory (bytes)"]["value"] == "80000000"


def test_nothing_timed(manifest: Manifest) -> None:
    document = valid(performance(manifest, HOST.fingerprint(), None, []))
    assert document["metadata"]["component"]["modelCard"] == {"quantitativeAnalysis": {"performanceMetrics": []}}


def test_the_same_bundle_has_the_same_bytes(bundle: Path, manifest: Manifest, tmp_path: Path) -> None:
    other = whole_bundle(tmp_path / "other")
    assert sbom(manifest, PACKAGES, bundle) == sbom(manifest, PACKAGES, bundle)
    assert (bundle / SBOM).read_bytes() == (other / SBOM).read_bytes()
    assert (bundle / PROVENANCE).read_bytes() == (other / PROVENANCE).read_bytes()
    another = manifest.model_copy(update={"version": "1.0.1"})
    one, two = (valid(sbom(entry, PACKAGES, bundle))["serialNumber"] for entry in (manifest, another))
    assert one != two


def test_provenance_is_a_statement_about_every_file(bundle: Path, manifest: Manifest) -> None:
    text = provenance(manifest, own_files(bundle, manifest))
    statement = json.loads(text)
    # The library of the in-toto project checks type, subjects and digests.
    Statement.copy_from_pb(message(text)).validate()
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    outside = ("measurements/", "attestations/")
    files = {p.relative_to(bundle).as_posix(): p for p in bundle.rglob("*") if p.is_file()}
    assert subjects == {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not name.startswith(outside)
    }
    definition = statement["predicate"]["buildDefinition"]
    assert definition["buildType"] == BUILD_TYPE
    assert definition["externalParameters"]["source"] == "onnx:linear.onnx"
    assert definition["resolvedDependencies"] == [
        {"name": "linear.onnx", "digest": {"sha256": "1" * 64}, "annotations": {"role": "model"}}
    ]
    assert statement["predicate"]["runDetails"]["builder"]["id"]


def message(text: str) -> Message:
    from google.protobuf import json_format

    return json_format.Parse(text, Message())
