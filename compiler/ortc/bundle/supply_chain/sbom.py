"""sbom.cdx.json: what a bundle is made of, as CycloneDX 1.7 with a model card; and what one machine measured of it.

The bill of materials has no numbers of a machine, so that equal inputs give equal bytes. Those are in a document of
their own beside each measurement, which refers to the model in the bill by a BOM-Link.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ortc import __version__
from ortc.bundle.manifest import Manifest
from ortc.common.digests import sha256_file
from ortc.common.values import digest
from ortc.evaluation.report import Numbers, Verdict
from ortc.spec.runtimes import NpmPackage, Package

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

SBOM = "sbom.cdx.json"
MODEL_REF = "model"
"""The bom-ref of the model in every document."""
_SPACE = uuid.UUID("6f70b1d1-4a6c-5c1e-9d43-0b1f2b7d7a55")
"""The name space of serial numbers: any UUID, and always this one."""
_PERCENTILES = ("p50_ms", "p90_ms", "p99_ms")


def sbom(
    manifest: Manifest,
    packages: Iterable[Package],
    directory: Path,
    extras: Mapping[str, Iterable[Package]] = MappingProxyType({}),
    npm: Iterable[NpmPackage] = (),
) -> str:
    """The bill of materials of a bundle.

    Args:
        manifest: its identity, interface and provenance; its list of files is not used.
        packages: the packages of its runtime.
        directory: where its model's files lie already.
        extras: packages that options of the server install besides, by the name of the extra.
        npm: packages of which the bundle carries files.
    """
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    bom = _bom(manifest, serial_number(manifest))
    model = bom.metadata.component
    assert model is not None  # noqa: S101 - for the type checker: _bom sets it
    graph = sorted((directory / "model").iterdir())
    parts = [
        Component(
            type=ComponentType.FILE,
            name=f"model/{file.name}",
            bom_ref=f"file:model/{file.name}",
            hashes=[_sha256(sha256_file(file))],
        )
        for file in graph
    ]
    sources = [
        Component(
            type=ComponentType.DATA,
            name=file.name,
            bom_ref=f"source:{file.name}",
            hashes=[_sha256(file.sha256)],
            licenses=_licenses(manifest.provenance.license_of(file.name)),
            properties=[Property(name="ortc:source", value=manifest.provenance.source)],
        )
        for file in manifest.provenance.files
    ]
    installed = list(packages)
    runtime = [*map(_package, installed), *_optional(extras, {package.name for package in installed})]
    runtime += map(_npm_package, npm)
    for component in (*parts, *sources, *runtime):
        bom.components.add(component)
    bom.register_dependency(model, [*parts, *sources, *runtime])
    return _text(bom, {"modelParameters": _parameters(manifest), "considerations": _considerations(manifest)})


def performance(manifest: Manifest, fingerprint: str, numbers: Numbers | None, verdicts: Iterable[Verdict]) -> str:
    """What one machine measured, as a CycloneDX model card of the same model.

    Args:
        manifest: of the bundle.
        fingerprint: of the machine.
        numbers: milliseconds, seconds and bytes; None where nothing was timed.
        verdicts: the promises that were judged there.
    """
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri

    serial = serial_number(manifest)
    bom = _bom(manifest, uuid.uuid5(_SPACE, f"{serial} {fingerprint}"))
    model = bom.metadata.component
    assert model is not None  # noqa: S101 - for the type checker: _bom sets it
    link = f"urn:cdx:{serial}/1#{MODEL_REF}"
    model.external_references.add(ExternalReference(type=ExternalReferenceType.BOM, url=XsUri(link)))
    return _text(bom, {"quantitativeAnalysis": {"performanceMetrics": list(_metrics(fingerprint, numbers, verdicts))}})


def serial_number(manifest: Manifest) -> uuid.UUID:
    """The same for the same bundle, wherever it was made."""
    return uuid.uuid5(_SPACE, digest(manifest.model_copy(update={"files": ()})))


def _bom(manifest: Manifest, serial: uuid.UUID) -> Bom:
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    tools = {"ortc": __version__, **manifest.provenance.tools}
    facts = {
        "target": manifest.target,
        "variant": manifest.variant.name,
        "precision": manifest.variant.precision,
        "opset": str(manifest.model.opset),
        "plan-sha256": manifest.provenance.plan_sha256,
        "fit-to-serve": str(manifest.fit_to_serve).lower(),
        "provisional": str(manifest.provisional).lower(),
    }
    return Bom(
        serial_number=serial,
        metadata=BomMetaData(
            # The time of every file of the bundle, never that of the build.
            timestamp=datetime.fromtimestamp(manifest.stamp, UTC),
            tools=ToolRepository(
                components=[
                    Component(type=ComponentType.APPLICATION, name=name, version=version)
                    for name, version in sorted(tools.items())
                ]
            ),
            component=Component(
                type=ComponentType.MACHINE_LEARNING_MODEL,
                name=manifest.name,
                version=manifest.version,
                bom_ref=MODEL_REF,
                properties=[Property(name=f"ortc:{name}", value=value) for name, value in facts.items()],
            ),
        ),
    )


def _optional(extras: Mapping[str, Iterable[Package]], installed: set[str]) -> Iterator[Component]:
    """Packages of extras that the runtime does not have already, each once, with the extras that install it."""
    from cyclonedx.model.component import ComponentScope

    wanted: dict[tuple[str, str], tuple[Package, list[str]]] = {}
    for name, packages in extras.items():
        for package in packages:
            if package.name not in installed:
                wanted.setdefault((package.name, package.version), (package, []))[1].append(name)
    for package, names in wanted.values():
        component = _package(package)
        component.scope = ComponentScope.OPTIONAL
        for name in names:
            component.properties.add(_property("ortc:extra", name))
        yield component


def _package(package: Package) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=PackageURL("pypi", None, package.name, package.version),
        bom_ref=f"pypi:{package.name}",
        # One wheel a platform and Python; whichever pip takes has one of these.
        properties=[_property("ortc:wheel-sha256", sha256) for sha256 in package.sha256],
    )


def _npm_package(package: NpmPackage) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from packageurl import PackageURL

    scope, _, name = package.name.rpartition("/")
    algorithm, _, value = package.integrity.partition("-")
    if algorithm != "sha512":
        raise ValueError(f"{package.name} has the integrity {package.integrity}, expected one of sha512")
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=PackageURL("npm", scope or None, name, package.version),
        bom_ref=f"npm:{package.name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_512, content=base64.b64decode(value).hex())],
        licenses=[DisjunctiveLicense(id=package.license)],
        properties=[
            _property("ortc:file-sha256", f"{PurePosixPath(file.path).name}:{file.sha256}") for file in package.files
        ],
    )


def _licenses(stated: str | None) -> list[Any]:
    """A licence as CycloneDX has it: by its SPDX identifier where there is one of that name, else as it is stated."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [] if stated is None else [LicenseFactory().make_from_string(stated)]


def _property(name: str, value: str) -> Any:
    from cyclonedx.model import Property

    return Property(name=name, value=value)


def _sha256(value: str) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=value)


def _parameters(manifest: Manifest) -> dict[str, Any]:
    return {
        "modelArchitecture": manifest.provenance.source,
        "inputs": [{"format": _tensor(tensor.name, tensor.dtype, tensor.shape)} for tensor in manifest.inputs],
        "outputs": [{"format": _tensor(tensor.name, tensor.dtype, tensor.shape)} for tensor in manifest.outputs],
    }


def _tensor(name: str, dtype: str, shape: Iterable[str | int | None]) -> str:
    return f"{name}: {dtype}[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _considerations(manifest: Manifest) -> dict[str, Any]:
    limits = [f"{axis.name} from {axis.min} to {axis.max}: other sizes are refused" for axis in manifest.axes]
    if manifest.unfit_reason:
        limits.append(f"not fit to serve: {manifest.unfit_reason}")
    if manifest.provisional:
        limits.append("provisional: a promise was not measured on the target's hardware")
    if manifest.variant.batch_invariant is False:
        limits.append("the answer to a request depends on what else is in its batch")
    return {"technicalLimitations": limits}


def _metrics(fingerprint: str, numbers: Numbers | None, verdicts: Iterable[Verdict]) -> Iterable[dict[str, Any]]:
    for verdict in verdicts:
        where = f", {verdict.where}" if verdict.where else ""
        yield _metric(
            f"gate {verdict.gate}",
            verdict.observed,
            f"{verdict.platform}: {verdict.outcome}, must be {verdict.limit}{where}",
        )
    if numbers is None:
        return
    for name in _PERCENTILES:
        interval = getattr(numbers, name)
        metric = _metric(
            f"latency {name.removesuffix('_ms')} (ms)",
            repr(interval.value),
            f"on {fingerprint}, {interval.samples} samples",
        )
        if interval.low is not None and interval.high is not None:
            metric["confidenceInterval"] = {"lowerBound": repr(interval.low), "upperBound": repr(interval.high)}
        yield metric
    yield _metric("start to first answer (s)", repr(numbers.start_seconds.value), f"on {fingerprint}")
    yield _metric("peak memory (bytes)", str(numbers.peak_rss_bytes), f"on {fingerprint}")
    if numbers.speedup is not None:
        yield _metric("speed-up over PyTorch eager", repr(numbers.speedup.value), f"on {fingerprint}")


def _metric(kind: str, value: str, where: str) -> dict[str, Any]:
    return {"type": kind, "value": value, "slice": where}


def _text(bom: Bom, card: Mapping[str, Any]) -> str:
    """The document. The library writes no model cards yet, so the model's is added to its JSON."""
    from cyclonedx.output.json import JsonV1Dot7

    document = json.loads(JsonV1Dot7(bom).output_as_string())
    document["metadata"]["component"]["modelCard"] = dict(card)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
