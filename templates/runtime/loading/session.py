"""ONNX Runtime and its session: imported and opened exactly as session.json says, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ProvidersError, RuntimeVersionError, SessionError, one_line
from .files import inside
from .machine import adds_in_32_bits, processor
from .nvidia import lacking
from .providers import CPU, CUDA, TENSORRT, provider_options
from .settings import PROVIDER_OPTIONS

# What session.json calls the members of the enumerations GraphOptimizationLevel and ExecutionMode.
ENUMERATIONS = {
    "graph_optimization_level": {
        "off": "ORT_DISABLE_ALL",
        "basic": "ORT_ENABLE_BASIC",
        "extended": "ORT_ENABLE_EXTENDED",
        "layout": "ORT_ENABLE_LAYOUT",
        "all": "ORT_ENABLE_ALL",
    },
    "execution_mode": {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"},
}
# Makes weights unsigned at load, for processors whose products of U8 and S8 overflow 16 bits.
UNSIGNED_WEIGHTS = "session.x64quantprecision"


def import_runtime(runtime: Mapping[str, str], environment: Mapping[str, str]) -> Any:
    """Import onnxruntime with `environment` set (never overriding what is set already) and check its version.

    The rule: any version from `minimum_version` on, a newer series too; the golden self-test then shows whether that
    one still computes the same. Suffixes such as `.dev1` or `+cu13` are not compared.
    """
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    least = runtime["minimum_version"]
    wanted = f"Expected {least} or newer: install {runtime['package']}=={runtime['version']} (see requirements.txt)."
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise RuntimeVersionError(f"onnxruntime cannot be imported: {error}. {wanted}") from error
    if _release(ort.__version__) < _release(least):
        raise RuntimeVersionError(f"onnxruntime is {ort.__version__}, too old. {wanted}")
    return ort


def graph_of(root: Path, model: Path, config: Mapping[str, Any], version: str) -> tuple[Path, bool]:
    """The graph to open: the one with packed weights where this processor and this onnxruntime are those it is for.

    Returns:
        Its file, and whether it is that one: it was optimized when it was made.
    """
    packed = config.get("prepacked")
    if not packed:
        return model, False
    fits = packed["runtime"] == version and packed["processor"] == processor() != ""
    return (inside(root, str(packed["file"])), True) if fits else (model, False)


def create_session(
    ort: Any,
    model: Path,
    config: Mapping[str, Any],
    threads: int,
    requests: int,
    *,
    optimized: bool = False,
    profile: Path | None = None,
) -> Any:
    """An InferenceSession with what session.json says, on exactly the providers that it asks for.

    A graph that is `optimized` already is taken as it is. With `profile`, ONNX Runtime records what every node does in
    files whose names begin so.
    """
    options = _session_options(ort, config, threads)
    if optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    providers = [
        (str(p["name"]), provider_options(p["name"], p["options"], threads, requests)) for p in config["providers"]
    ]
    asked = [name for name, _ in providers]
    _check_available(ort, asked)
    # Its notes about missing libraries go to stdout.
    with contextlib.redirect_stdout(sys.stderr):
        if any(name in (CUDA, TENSORRT) for name in asked):
            getattr(ort, "preload_dlls", lambda: None)()
        try:
            session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:
            # Models fail with classes of their own; a provider that cannot start with a RuntimeError or EPFail, or, as
            # OpenVINO does for a property that it does not know, from its own code.
            ours = isinstance(error, RuntimeError) or type(error).__name__ == "EPFail" or "openvino_ep::" in str(error)
            provider = asked != [CPU] and ours
            kind = ProvidersError if provider else SessionError
            what = f"onnxruntime {ort.__version__} cannot open {model} on {', '.join(asked)}"
            hint = lacking(asked, str(getattr(ort, "cuda_version", "") or "")) if provider else ""
            raise kind(f"{what}: {one_line(error)}{hint}") from error
    if session.get_providers() != asked:
        why = lacking(asked, str(getattr(ort, "cuda_version", "") or ""))
        raise ProvidersError(
            f"session.json asks for {', '.join(asked)}; onnxruntime gave {', '.join(session.get_providers())}."
            + (
                why
                or " Its log on stderr says why: most often a driver or a library (CUDA, cuDNN, TensorRT) is missing, "
                "or a provider refuses a value of its options."
            )
        )
    return session


def _session_options(ort: Any, config: Mapping[str, Any], threads: int) -> Any:
    options = ort.SessionOptions()
    for name, value in config["session_options"].items():
        if not hasattr(options, name):
            raise ValueError(f"session_options.{name} does not exist in onnxruntime {ort.__version__}")
        known = ENUMERATIONS.get(name)
        if known is not None and value not in known:
            raise ValueError(f"session_options.{name} is {value!r}, expected one of {', '.join(known)}")
        setattr(options, name, getattr(type(getattr(options, name)), known[value]) if known else value)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = int(config["threads"]["inter_op"])
    for name, value in config["config_entries"].items():
        # Where nothing overflows it changes no answer, and products take half again as long.
        if name != UNSIGNED_WEIGHTS or not adds_in_32_bits():
            options.add_session_config_entry(name, value)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _check_available(ort: Any, asked: Sequence[str]) -> None:
    available = ort.get_available_providers()
    if not asked or any(name not in available for name in asked):
        raise ProvidersError(
            f"session.json asks for {', '.join(asked) or 'no provider'}; this onnxruntime {ort.__version__} has "
            f"{', '.join(available)}. Install the package of requirements.txt, or use a bundle for another target."
        )
    if other := [name for name in asked if name not in PROVIDER_OPTIONS]:
        raise ProvidersError(
            f"session.json asks for {', '.join(other)}. Loaders refuse all but {', '.join(PROVIDER_OPTIONS)}."
        )


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
