"""What a Dockerfile is rendered from: wheels of every platform, files that nothing loads, labels, environment."""

from __future__ import annotations

from ortc import versions
from ortc.bundle import Manifest, SessionFile
from ortc.plan import TargetPlan
from ortc.versions import PinSet

TOOLS = (
    # Written for people who develop models and wheels; the loader and the server import none of it.
    "bin",
    "numpy/_core/include",
    "numpy/_core/*_tests.*.so",
    "numpy/_core/_simd.*.so",
    "numpy/_core/lib",
    "numpy/_pyinstaller",
    "numpy/f2py",
    "numpy/random/_examples",
    "numpy/random/lib",
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)
"""Parts of wheels that no image needs."""

REQUIRED = ("flatbuffers", "google", "packaging")
"""Packages that ONNX Runtime's wheels require for their tools; extras may need them for themselves."""

LIBRARY = "onnxruntime/capi/libonnxruntime.so*"
"""ONNX Runtime once more, for programs in other languages: the Python extension holds its own."""

PARTS: dict[str, tuple[str, ...]] = {
    "CPUExecutionProvider": (LIBRARY,),
    "CUDAExecutionProvider": (LIBRARY, "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"),
    "TensorrtExecutionProvider": (LIBRARY,),
    # The loader refuses every device of OpenVINO's but the CPU. Libraries are linked by their short version, the other
    # two names are copies. The wheel requires sympy for its tools alone, which are left out, too.
    "OpenVINOExecutionProvider": (
        LIBRARY,
        "isympy.py",
        "mpmath",
        "onnxruntime/capi/libopenvino*.so.*.*",
        "onnxruntime/capi/libopenvino.so",
        "onnxruntime/capi/libopenvino_auto_plugin.so",
        "onnxruntime/capi/libopenvino_c.so*",
        "onnxruntime/capi/libopenvino_hetero_plugin.so",
        "onnxruntime/capi/libopenvino_intel_gpu_plugin.so",
        "onnxruntime/capi/libopenvino_intel_npu_plugin.so",
        "onnxruntime/capi/libopenvino_onnx_frontend.so",
        "onnxruntime/capi/libtbb.so",
        "sympy",
    ),
}
"""Parts of the runtime's wheel that a chain with this provider in front does not load."""

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
    cuda = versions.runtime(manifest.runtime.package, manifest.runtime.version).cuda if target.requires_gpu else None
    environment = dict(session.environment)
    if cuda is not None:
        # Containers are refused where the driver is too old, instead of failing when the first session is made.
        environment |= GPU_ENVIRONMENT | {"NVIDIA_REQUIRE_CUDA": f"cuda>={cuda.version}"}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "target": manifest.target,
        "description": target.description,
        "base_image": target.image.base_image,
        "stamp": manifest.stamp,
        "platforms": [
            {"architecture": architecture_of(platform), "tags": wheel_tags(pins, platform)}
            for platform in target.platforms
        ],
        "extras": [extra.name for extra in versions.extras()],
        "served": " and ".join(target.platforms),
        "unneeded": sorted({*TOOLS, *PARTS.get(session.providers[0].name, ())}),
        "required": REQUIRED,
        "labels": _labels(manifest, cuda),
        "environment": sorted(environment.items()),
    }


def architecture_of(platform: str) -> str:
    """The architecture of a platform as container tools name it: `arm64` of `linux/arm64`."""
    return platform.partition("/")[2]


def wheel_tags(pins: PinSet, platform: str) -> tuple[str, ...]:
    """Platform tags of the wheels that a platform installs, as `pip install --platform` wants them: each by its name.

    Those of the extras are among them. See PEP 425: a wheel's file name ends in tags that are joined by dots.
    """
    tags: set[str] = set()
    for pin in (pin for chosen in (pins, *versions.extras()) for pin in chosen.requirements):
        for wheel in pin.wheels:
            if platform in wheel.serves:
                tags.update(wheel.file.removesuffix(".whl").rpartition("-")[2].split("."))
    return tuple(sorted(tags - {"any"}))


def _labels(manifest: Manifest, cuda: versions.Cuda | None) -> list[tuple[str, str]]:
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
