"""What a Dockerfile is rendered from: wheels of every platform, files that nothing loads, labels, environment."""

from __future__ import annotations

from ortc.bundle.manifest import Manifest
from ortc.bundle.session_file import SessionFile
from ortc.plan.plan import ImagePlan, TargetPlan
from ortc.spec import runtimes
from ortc.spec.runtimes import PinSet
from ortc.spec.unused_files import PARTS, REQUIRED, TOOLS

GPU_ENVIRONMENT = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
"""What NVIDIA's container runtime reads to hand a GPU in."""


def image_fields(target: TargetPlan, manifest: Manifest, session: SessionFile, pins: PinSet) -> dict[str, object]:
    """Fields of Dockerfile.j2.

    Args:
        target: the plan of the target.
        manifest: identity and provenance.
        session: session.json.
        pins: the packages that the image installs.
    """
    cuda = runtimes.runtime(manifest.runtime.package, manifest.runtime.version).cuda if target.requires_gpu else None
    environment = dict(session.environment)
    if cuda is not None:
        # Containers are refused where the driver is too old, instead of failing when the first session is made.
        environment |= GPU_ENVIRONMENT | {"NVIDIA_REQUIRE_CUDA": f"cuda>={cuda.version}"}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "target": manifest.target,
        "description": target.description,
        "base_image": image_of(target).base_image,
        "is_pinned": "@sha256:" in image_of(target).base_image,
        "stamp": manifest.stamp,
        "platforms": [
            {"architecture": architecture_of(platform), "tags": wheel_tags(pins, platform)}
            for platform in target.platforms
        ],
        "takes": None if manifest.processing is None else manifest.processing.takes,
        "extras": [extra.name for extra in runtimes.extras()],
        "served": " and ".join(target.platforms),
        "unneeded": sorted({*TOOLS, *PARTS.get(session.providers[0].name, ())}),
        "required": REQUIRED,
        "labels": _labels(manifest, cuda),
        "environment": sorted(environment.items()),
    }


def image_of(target: TargetPlan) -> ImagePlan:
    """What the Dockerfile of a target is rendered from.

    Raises:
        ValueError: its bundles run in browsers, and have no Dockerfile.
    """
    if target.image is None:
        raise ValueError(f"bundles of `{target.name}` have no Dockerfile")
    return target.image


def architecture_of(platform: str) -> str:
    """The architecture of a platform as container tools name it: `arm64` of `linux/arm64`."""
    return platform.partition("/")[2]


def wheel_tags(pins: PinSet, platform: str) -> tuple[str, ...]:
    """Platform tags of the wheels that a platform installs, as `pip install --platform` wants them: each by its name.

    Those of the extras are among them. See PEP 425: a wheel's file name ends in tags that are joined by dots.
    """
    tags: set[str] = set()
    for pin in (pin for chosen in (pins, *runtimes.extras()) for pin in chosen.requirements):
        for wheel in pin.wheels:
            if platform in wheel.serves:
                tags.update(wheel.file.removesuffix(".whl").rpartition("-")[2].split("."))
    return tuple(sorted(tags - {"any"}))


def _labels(manifest: Manifest, cuda: runtimes.Cuda | None) -> list[tuple[str, str]]:
    labels = [
        ("org.opencontainers.image.title", manifest.name),
        ("org.opencontainers.image.version", manifest.version),
        ("ortc.target", manifest.target),
        ("ortc.variant", manifest.variant.name),
        ("ortc.precision", manifest.variant.precision),
        ("ortc.opset", str(manifest.model.opset)),
        ("ortc.runtime", f"{manifest.runtime.package}=={manifest.runtime.version}"),
        ("ortc.plan", f"sha256:{manifest.provenance.plan_sha256}"),
        ("ortc.fit-to-serve", str(manifest.fit_to_serve).lower()),
        ("ortc.provisional", str(manifest.provisional).lower()),
    ]
    if manifest.provenance.revision is not None:
        labels.append(("org.opencontainers.image.revision", manifest.provenance.revision))
    if cuda is not None:
        labels += [("ortc.cuda", cuda.version), ("ortc.nvidia-driver", f">={cuda.least_driver}")]
    return sorted(labels)
