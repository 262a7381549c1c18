"""Which targets this machine can build and measure, and what would have to be there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ortc.build.doctor import Disk, Facts
from ortc.build.instruction_sets import EMULATOR, LEAST_EMULATOR, hides_overflow
from ortc.common.units import format_bytes
from ortc.common.values import Frozen
from ortc.execution.browser.chromium import INSTALL
from ortc.execution.node.program import INSTALL as INSTALL_NODE
from ortc.execution.npm_package import CLIENT
from ortc.spec import runtimes
from ortc.spec.profile import TargetProfile

LEAST_FREE = 20 * 10**9
"""Bytes that a first build may need: the runtime environments of all targets, and a few copies of a large model."""


class Problem(Frozen):
    """Something that is missing, and how to get it."""

    what: str
    how: str


class Readiness(Frozen):
    """What can be done for one target here."""

    target: str
    measured: tuple[str, ...]
    """Platforms whose promises can be measured on this machine."""
    unmeasured: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def ready(self) -> bool:
        """Whether everything that the profile promises by default can be measured here."""
        return not self.unmeasured


def of_machine(facts: Facts) -> tuple[Problem, ...]:
    """What is missing whatever the target."""
    problems = [
        Problem(
            what=f"{package.name} {package.installed or 'is not installed'}".strip()
            + (f", {package.wanted} is needed" if package.installed else ""),
            how=f"pip install '{package.name}{package.wanted}'",
        )
        for package in facts.packages
        if not package.fits
    ]
    if facts.runtime.error:
        problems.append(
            Problem(
                what=f"onnxruntime cannot be imported: {facts.runtime.error}",
                how="install exactly one of onnxruntime, onnxruntime-gpu and onnxruntime-openvino; they share a module",
            )
        )
    problems += [_full(disk) for disk in facts.disks if disk.free < LEAST_FREE]
    if not facts.hub.reachable:
        problems.append(
            Problem(
                what=f"the hub at {facts.hub.endpoint} cannot be reached ({facts.hub.detail})",
                how="put the files into a directory and name it in `model.mirrors` or `model.path`; or set HF_ENDPOINT",
            )
        )
    if all(tool.version is None for tool in facts.tools if tool.name in {"docker", "podman", "buildah"}):
        problems.append(
            Problem(
                what="no docker, podman or buildah",
                how="bundles can be built and measured without one; to build their images, install one of them "
                "(Debian: apt-get install buildah)",
            )
        )
    return tuple(problems)


def _full(disk: Disk) -> Problem:
    if disk.purpose == "cache":
        how = "free some (`ortc cache prune`), or set ORTC_CACHE_DIR to a directory on a larger disk"
    else:
        how = "free some, or give `ortc build -o` a directory on a larger disk"
    return Problem(what=f"only {format_bytes(disk.free)} free at {disk.path} ({disk.purpose})", how=how)


def of_target(facts: Facts, profile: TargetProfile) -> Readiness:
    """What can be done for a target whose spec says nothing but the profile's name."""
    if profile.is_web or profile.is_node:
        return _of_scripts(facts, profile)
    platforms = profile.default_platforms or profile.platforms
    problems = _runtime(facts, profile)
    runs = not problems
    measured = tuple(platform for platform in platforms if runs and platform == facts.host.platform)
    unmeasured = tuple(platform for platform in platforms if platform not in measured)
    problems += [_other_platform(facts, platform) for platform in platforms if platform != facts.host.platform]
    problems += _engines(facts, profile)
    problems += _instruction_sets(facts, profile, platforms)
    return Readiness(target=profile.name, measured=measured, unmeasured=unmeasured, problems=tuple(problems))


def _of_scripts(facts: Facts, profile: TargetProfile) -> Readiness:
    """Bundles for browsers and Node: npm fetches what they carry, Chromium or Node measures them."""
    tools = {tool.name: tool.version for tool in facts.tools}
    problems = []
    if tools.get(CLIENT) is None:
        problems.append(
            Problem(
                what=f"no npm: {profile.runtime.package} is not fetched, unless it is cached",
                how="install it (Debian and Ubuntu: apt-get install npm)",
            )
        )
    platforms = profile.default_platforms or profile.platforms
    if profile.is_web:
        runs, lacks = facts.chromium is not None, Problem(what="no Chromium: nothing is measured", how=INSTALL)
        measured = platforms if runs else ()
    else:
        runs, lacks = facts.node is not None, Problem(what="no Node.js: nothing is measured", how=INSTALL_NODE)
        measured = tuple(platform for platform in platforms if runs and platform == facts.host.platform)
    if not runs:
        problems.append(lacks)
    unmeasured = tuple(platform for platform in platforms if platform not in measured)
    problems += [_other_platform(facts, platform) for platform in unmeasured if runs]
    return Readiness(target=profile.name, measured=measured, unmeasured=unmeasured, problems=tuple(problems))


_MEASURE_THERE = "run the bundle's `runtime/measure.py` on {} and `ortc attach BUNDLE FILE` here"


def _other_platform(facts: Facts, platform: str) -> Problem:
    how = f"build here with `unmeasured: allow`, then {_MEASURE_THERE.format(f'a {platform} machine')}"
    if platform == "linux/arm64" and not facts.arm64_emulation:
        how += "; to build its image here, emulate (Debian: apt-get install qemu-user-static binfmt-support)"
    return Problem(what=f"this machine is {facts.host.platform}, not {platform}", how=how)


def _instruction_sets(facts: Facts, profile: TargetProfile, platforms: Collection[str]) -> Iterator[Problem]:
    """INT8 for amd64 is also judged without VNNI; builds here lack that verdict without an emulator."""
    quantizes = any(variant.quantization is not None for variant in profile.variants)
    if quantizes and hides_overflow(platforms, facts.host) and facts.avx2_emulation is None:
        yield Problem(
            what=f"no {EMULATOR} {'.'.join(map(str, LEAST_EMULATOR))} or later: INT8 variants are not judged on "
            "processors without VNNI, and count as unmeasured",
            how="install QEMU's user-mode emulation (Debian and Ubuntu: apt-get install qemu-user-static)",
        )


def _engines(facts: Facts, profile: TargetProfile) -> list[Problem]:
    """Other runtimes of the profile that cannot be installed here; builds go on without their variants."""
    python = ".".join(facts.python.split(".")[:2])
    problems = []
    for engine in profile.engines.values():
        try:
            pins = runtimes.pins(engine.runtime.pins)
        except runtimes.UnknownVersionError as error:
            problems.append(Problem(what=str(error), how="correct the engine's `runtime` in the profile"))
            continue
        if not pins.serves(facts.host.platform, python):
            problems.append(
                Problem(
                    what=f"{engine.runtime.package} {engine.runtime.version} has no wheels for {facts.host.platform}, "
                    f"Python {python}: its variants are not tried",
                    how=f"run ortc with Python {' or '.join(pins.pythons)} on {' or '.join(pins.platforms)}",
                )
            )
    return problems


def _runtime(facts: Facts, profile: TargetProfile) -> list[Problem]:
    """Why the profile's runtime cannot run on this machine."""
    problems = []
    try:
        pins = runtimes.pins(profile.runtime.pins)
        runtime = runtimes.runtime(profile.runtime.package, profile.runtime.version)
    except runtimes.UnknownVersionError as error:
        return [Problem(what=str(error), how="correct the profile's `runtime`")]
    python = ".".join(facts.python.split(".")[:2])
    if python not in pins.pythons:
        problems.append(
            Problem(
                what=f"{profile.runtime.package} {profile.runtime.version} has no wheels for Python {python}",
                how=f"run ortc with Python {' or '.join(pins.pythons)}",
            )
        )
    if not profile.requires_gpu:
        return problems
    if not facts.gpu.names:
        problems.append(
            Problem(
                what="no NVIDIA GPU that the driver shows",
                how=f"build here with `unmeasured: allow`, then {_MEASURE_THERE.format('a machine with one')}",
            )
        )
    elif runtime.cuda is not None and _major(facts.gpu.driver) < _major(runtime.cuda.least_driver):
        problems.append(
            Problem(
                what=f"the NVIDIA driver is {facts.gpu.driver}, CUDA {runtime.cuda.version} needs "
                f"{runtime.cuda.least_driver} or newer",
                how=f"install NVIDIA's driver {runtime.cuda.least_driver} or newer, on the machine and in no container",
            )
        )
    elif runtime.cuda is not None and _number(facts.gpu.capability) < _number(runtime.cuda.least_capability):
        problems.append(
            Problem(
                what=f"the GPU {facts.gpu.names[0]} has compute capability {facts.gpu.capability}, CUDA "
                f"{runtime.cuda.version} needs {runtime.cuda.least_capability} or higher",
                how="use a newer GPU, or build for this one's kind elsewhere with `unmeasured: allow`",
            )
        )
    tensorrt = any(provider.name == "TensorrtExecutionProvider" for provider in profile.execution_providers)
    if tensorrt and not any(name.startswith("libnvinfer.so") for name in facts.gpu.libraries):
        problems.append(
            Problem(
                what="no libnvinfer, which the TensorRT provider loads",
                how="run ortc in "
                + ("a" if profile.image is None else f"the profile's base image, {profile.image.base_image}")
                + ", or install TensorRT",
            )
        )
    return problems


def _number(capability: str | None) -> tuple[int, int]:
    """Of `9.0`; unknown ones are not held against a device."""
    major, _, minor = (capability or "").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (99, 0)


def _major(version: str | None) -> int:
    number = (version or "").partition(".")[0]
    return int(number) if number.isdigit() else 0
