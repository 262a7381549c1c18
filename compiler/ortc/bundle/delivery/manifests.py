"""Manifests that deploy a bundle: Kubernetes, KServe, Triton. Their numbers are those that were measured of it."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ortc.bundle.integrity import MANIFEST, refuse_unfit, verified
from ortc.bundle.manifest import InputInfo, Manifest, OutputInfo
from ortc.bundle.performance import Performance, performance_in
from ortc.bundle.publish import Staging
from ortc.bundle.render import template_environment
from ortc.bundle.session_file import LEVEL, SessionFile, read_session
from ortc.bundle.supply_chain.companions import companions
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError, UsageError
from ortc.common.plain_files import read_plain
from ortc.common.units import format_bytes, format_seconds
from ortc.execution.worker import is_script, place_of

Kind = Literal["k8s", "kserve", "triton"]
KINDS: tuple[Kind, ...] = ("k8s", "kserve", "triton")
SUFFIX = ".deploy"
"""Of the directory beside a bundle that takes what is emitted."""
IMAGE = "{name}:{version}-{target}"
SERVER_BYTES = 64 * 2**20
"""What the server takes beside the model, whose peak the loader measured without one."""
_IN_TRITON = frozenset({"1", "config.pbtxt"})
LIMIT = 1.5
"""How many times the memory that is requested a container may take: many large requests at once."""
_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "MIGraphXExecutionProvider")
_TYPES = {
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "string": "TYPE_STRING",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "bool": "TYPE_BOOL",
    **{f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_LEVELS = {"off": 2, "basic": -1, "extended": 1}
"""Triton's numbers of graph optimization levels; it enables all where none is said."""


@dataclass(frozen=True)
class Described:
    """A bundle, read; `left_out` says which measurements beside it are not used."""

    place: Path
    manifest: Manifest
    session: SessionFile
    measured: Performance | None
    left_out: str | None

    @property
    def gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return any(provider.name in _GPU for provider in self.session.providers)


def emit(
    bundle: Path,
    kinds: Sequence[Kind],
    *,
    image: str = IMAGE,
    output: Path | None = None,
    key: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, ...]:
    """Write deployment manifests beside a bundle, all or none.

    Args:
        bundle: the directory.
        kinds: which.
        image: the name of the bundle's container image, with `{name}`, `{version}` and `{target}`.
        output: a directory for them, which is replaced; by default TARGET.deploy beside the bundle.
        key: a public key as PEM, with which the bundle must be signed.
        say: told which measurements are not used because no signature covers them.

    Raises:
        SignatureError: with a key, the bundle is not as it was signed with it.
        StageError: the bundle is damaged, not fit to serve, or has what Triton cannot have.
        UsageError: the output directory holds what was not emitted.
    """
    described = describe(bundle, key)
    if is_script(bundle):
        raise UsageError(
            f"{bundle} is for {place_of(bundle)}: no container serves its model",
            help="its README.md says how it is served",
        )
    if described.left_out is not None:
        say(described.left_out)
    place = output or bundle.resolve().with_name(bundle.resolve().name + SUFFIX)
    _refuse_foreign(place)
    written: list[Path] = []
    with Staging(place) as staging:
        for kind in kinds:
            if kind == "triton":
                path = _write_triton(described, staging.directory)
            else:
                path = Path(f"{kind}.yaml")
                text = kubernetes(described, image) if kind == "k8s" else kserve(described, image)
                (staging.directory / path).write_text(text, "utf-8")
            written.append(place / path)
        staging.commit()
    return tuple(written)


def _refuse_foreign(place: Path) -> None:
    """Check that a directory which is to be replaced holds nothing but what was emitted.

    Raises:
        UsageError: it is a link or a file, or holds something else.
    """
    if not os.path.lexists(place):
        return
    known = {f"{kind}.yaml" for kind in KINDS if kind != "triton"}
    other: str | None = place.name
    if place.is_dir() and not place.is_symlink():
        entries = sorted(place.iterdir())
        models = sorted((place / "triton").iterdir()) if (place / "triton").is_dir() else []
        other = next(
            (path.name for path in entries if path.is_symlink() or path.name not in known | {"triton"}), None
        ) or next((path.name for path in models if {entry.name for entry in path.iterdir()} - _IN_TRITON), None)
    if other is not None:
        raise UsageError(
            f"{place} is not replaced: `{other}` was not written by `ortc emit`",
            help="give `-o` a new or an empty directory, or one that `ortc emit` made",
        )


def describe(bundle: Path, key: Path | None = None) -> Described:
    """Read a bundle and the measurements beside it that may be used.

    Args:
        bundle: the directory.
        key: a public key as PEM, with which the bundle must be signed.

    Raises:
        StageError: it is damaged, or not fit to serve.
        SignatureError: with a key, the bundle is not as it was signed with it.
    """
    manifest = verified(bundle)
    refuse_unfit(bundle, manifest, "deployed")
    usable = companions(bundle, key)
    found = [performance_in(read_plain(bundle / path), path) for path in usable.measurements]
    timed = [entry for entry in found if entry.numbers is not None]
    session = read_session(bundle)
    # Of several machines the one where it took the most.
    measured = max(timed, key=lambda entry: entry.numbers.peak_rss_bytes if entry.numbers else 0, default=None)
    return Described(bundle, manifest, session, measured, usable.note(str(bundle)))


def kubernetes(described: Described, image: str) -> str:
    """Deployment, Service and, where it was measured what a request costs, HorizontalPodAutoscaler."""
    return template_environment().get_template("emit/kubernetes.yaml.j2").render(_fields(described, image))


def kserve(described: Described, image: str) -> str:
    """An InferenceService with the bundle's own server."""
    return template_environment().get_template("emit/kserve.yaml.j2").render(_fields(described, image))


def triton(described: Described) -> str:
    """config.pbtxt.

    Raises:
        StageError: a tensor has a type that Triton lacks.
    """
    manifest, session = described.manifest, described.session
    batch = _batch_axis(manifest)
    providers = [provider.name for provider in session.providers]
    accelerators = [
        {"kind": kind, "name": name}
        for provider, kind, name in (
            ("TensorrtExecutionProvider", "gpu_execution_accelerator", "tensorrt"),
            ("OpenVINOExecutionProvider", "cpu_execution_accelerator", "openvino"),
        )
        if provider in providers
    ]
    intra = session.threads.intra_op
    fields = {
        "model": manifest.name,
        "version": manifest.version,
        "target": manifest.target,
        "minimum_version": manifest.runtime.minimum_version,
        "max_batch_size": 0 if batch is None else next(a.max for a in manifest.axes if a.name == batch),
        "inputs": [_tensor(tensor, batch) for tensor in manifest.inputs],
        "outputs": [_tensor(tensor, batch) for tensor in manifest.outputs],
        "kind": "KIND_GPU" if described.gpu else "KIND_CPU",
        # Elsewhere an answer would depend on who else asked.
        "batching": batch is not None and manifest.variant.batch_invariant is True,
        "level": _LEVELS.get(str(session.session_options[LEVEL])),
        "accelerators": accelerators,
        "parameters": [
            # 0: as many as there are cores.
            ("intra_op_thread_count", "0" if intra == "physical" else str(intra)),
            ("inter_op_thread_count", str(session.threads.inter_op)),
            ("execution_mode", "1" if session.session_options.get("execution_mode") == "parallel" else "0"),
        ],
    }
    return template_environment().get_template("emit/config.pbtxt.j2").render(fields)


def _write_triton(described: Described, directory: Path) -> Path:
    """A model repository with one model, whose version there is 1."""
    home = Path("triton") / described.manifest.name
    (directory / home / "1").mkdir(parents=True)
    (directory / home / "config.pbtxt").write_text(triton(described), "utf-8")
    for file in described.manifest.files:
        if PurePosixPath(file.path).parts[0] == "model":
            shutil.copyfile(described.place / file.path, directory / home / "1" / PurePosixPath(file.path).name)
    return home / "config.pbtxt"


def _batch_axis(manifest: Manifest) -> str | None:
    """The axis that every input and output starts with, where they share one that is checked at every size."""
    shapes = [*(tensor.shape for tensor in manifest.inputs), *(tensor.shape for tensor in manifest.outputs)]
    firsts = {shape[0] if shape else None for shape in shapes}
    (first,) = firsts if len(firsts) == 1 else (None,)
    axis = next((axis for axis in manifest.axes if axis.name == first), None)
    return axis.name if axis is not None and axis.min == 1 and axis.multiple_of == 1 else None


def _tensor(tensor: InputInfo | OutputInfo, batch: str | None) -> dict[str, Any]:
    if tensor.dtype not in _TYPES:
        raise StageError(f"`{tensor.name}` is of dtype {tensor.dtype}, which Triton does not have")
    shape = tensor.shape if batch is None else tensor.shape[1:]
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return {
        "name": tensor.name,
        "type": _TYPES[tensor.dtype],
        "dims": f"[ {', '.join(map(str, sizes or [1]))} ]",
        "scalar": not sizes,
    }


def _fields(described: Described, image: str) -> dict[str, Any]:
    manifest, found = described.manifest, described.measured
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    told = (
        "not measured on its hardware: set requests of cpu and memory, and a HorizontalPodAutoscaler, by what it takes"
    )
    start_told, startup_failures = "not measured", 60
    if found is not None and found.numbers is not None:
        memory = found.numbers.peak_rss_bytes + SERVER_BYTES
        cpu = str(found.threads or found.host.cores)
        requests = {"cpu": cpu, "memory": f"{math.ceil(memory / 2**20)}Mi"}
        limits = {"cpu": cpu, "memory": f"{math.ceil(LIMIT * memory / 2**20)}Mi"}
        start = found.numbers.start_seconds.value
        # Ten times what was measured, of probes two seconds apart; a cold disk or a busy node is slower.
        startup_failures = max(15, math.ceil(10 * start / 2))
        start_told = f"measured {format_seconds(start)}, {2 * startup_failures} s are waited for"
        told = (
            f"by what {found.fingerprint} measured, {found.host.cpu}: {cpu} threads, a peak of "
            f"{format_bytes(found.numbers.peak_rss_bytes)}"
        )
    if described.gpu:
        limits["nvidia.com/gpu"] = "1"
    platforms = [platform.partition("/") for platform in manifest.platforms]
    return {
        "name": resource_name(f"{manifest.name}-{manifest.target}"),
        "model": manifest.name,
        "version": manifest.version,
        "version_label": manifest.version.replace("+", "_").rstrip("._-")[:63],
        "target": manifest.target,
        "told": told,
        "manifest_sha256": sha256_file(described.place / MANIFEST),
        "image": image.format(name=manifest.name, version=_tag(manifest.version), target=manifest.target),
        "systems": sorted({system for system, _, _ in platforms}),
        "architectures": sorted({architecture for _, _, architecture in platforms}),
        "measured": found is not None,
        "requests": requests,
        "limits": limits,
        "start_told": start_told,
        "startup_failures": startup_failures,
    }


def resource_name(name: str) -> str:
    """A name as Services ask for (RFC 1035): lower-case letters, digits and `-`, a letter first, at most 63."""
    plain = re.sub(r"[^a-z0-9-]", "-", name)
    plain = plain if plain[0].isalpha() else f"m-{plain}"
    return plain[:63].rstrip("-")


def _tag(version: str) -> str:
    """A version in a tag of an image, where `+` cannot be."""
    return version.replace("+", "_")
