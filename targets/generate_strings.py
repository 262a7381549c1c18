"""Find the names that an ONNX Runtime binary compares its options with.

A name that the code compares with is a NUL-terminated string of the library, so a whole NUL-delimited string with a
known prefix is a key. Compilers hide some names: one that is the tail of a longer string, and one short enough to be
compared as immediate operands. Those are looked for by name, from the documented lists below.
"""

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# onnxruntime_session_options_config_keys.h names its keys `[area].[sub-area].[name]`; these are the areas.
_SESSION_KEY = re.compile(rb"(?<=\0)((?:session|optimization|ep|mlas)\.[a-z0-9_.]*[a-z0-9])(?=\0)")
_RUN_KEY = re.compile(rb"(?<=\0)((?:memory|qnn)\.[a-z0-9_.]*[a-z0-9])(?=\0)")
_TENSORRT_OPTION = re.compile(rb"(?<=\0)(trt_[a-z0-9_]*[a-z0-9])(?=\0)")

# Not for users: `session.compile_only` is set by the compile API itself, `ep.dynamic.` keys belong to
# SetEpDynamicOptions and are ignored in session options.
_INTERNAL_KEYS = ("session.compile_only", "ep.dynamic.")

# From onnxruntime_session_options_config_keys.h, and those that only the arm64 wheel has as a plain string; only the
# ones that a binary has are recorded for it.
_DOCUMENTED_SESSION_KEYS = (
    "ep.context_embed_mode",
    "ep.context_enable",
    "ep.context_file_path",
    "ep.context_model_external_initializers_file_name",
    "ep.context_node_name_prefix",
    "ep.context_source_model_path",
    "ep.enable_weightless_ep_context_nodes",
    "ep.nnapi.partitioning_stop_ops",
    "ep.share_ep_contexts",
    "ep.stop_share_ep_contexts",
    "mlas.enable_gemm_fastmath_arm64_bfloat16",
    "session.model_external_initializers_file_folder_path",
    "session.use_memory_mapped_ort_model",
    "session.x64quantprecision",
)

# Documented in onnxruntime_run_options_config_keys.h.
_DOCUMENTED_RUN_KEYS = (
    "disable_synchronize_execution_providers",
    "gpu_graph_id",
    "memory.enable_memory_arena_shrinkage",
    "qnn.htp_perf_mode",
    "qnn.htp_perf_mode_post_run",
    "qnn.lora_config",
    "qnn.rpc_control_latency",
)

# https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and the provider's option parser.
_DOCUMENTED_CUDA_OPTIONS = (
    "arena_extend_strategy",
    "cudnn_conv1d_pad_to_nc1d",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "device_id",
    "do_copy_in_default_stream",
    "enable_cuda_graph",
    "enable_cudnn",
    "enable_skip_layer_norm_strict_mode",
    "fuse_conv_bias",
    "gpu_external_alloc",
    "gpu_external_empty_cache",
    "gpu_external_free",
    "gpu_mem_limit",
    "has_user_compute_stream",
    "prefer_nhwc",
    "sdpa_kernel",
    "tunable_op_enable",
    "tunable_op_max_tuning_duration_ms",
    "tunable_op_tuning_enable",
    "use_ep_level_unified_stream",
    "use_tf32",
    "user_compute_stream",
)

# https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html; the trt_ ones are found by prefix.
_DOCUMENTED_TENSORRT_OPTIONS = ("device_id", "has_user_compute_stream", "user_compute_stream")


@dataclass(frozen=True)
class Library:
    """The bytes of one shared library of a wheel."""

    file: str
    content: bytes


def libraries(wheel: Path) -> tuple[Library, ...]:
    """The shared libraries in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if re.search(r"\.so(\.[0-9.]+)?$", name))
        return tuple(Library(name.rsplit("/", 1)[-1], archive.read(name)) for name in names)


def config_keys(found: Iterable[Library]) -> list[str]:
    """Session configuration keys that these libraries know."""
    keys = _search(_SESSION_KEY, _DOCUMENTED_SESSION_KEYS, found)
    return sorted(key for key in keys if not key.startswith(_INTERNAL_KEYS))


def run_keys(found: Iterable[Library]) -> list[str]:
    """Run configuration keys that these libraries know."""
    return sorted(_search(_RUN_KEY, _DOCUMENTED_RUN_KEYS, found))


def provider_options(provider: str, found: Iterable[Library]) -> list[str]:
    """Option names of an execution provider: none for those that ignore what they are given."""
    own = [library for library in found if library.file == f"libonnxruntime_providers_{_LIBRARY.get(provider)}.so"]
    if provider == "CUDAExecutionProvider":
        return sorted(_search(None, _DOCUMENTED_CUDA_OPTIONS, own))
    if provider == "TensorrtExecutionProvider":
        return sorted(_search(_TENSORRT_OPTION, _DOCUMENTED_TENSORRT_OPTIONS, own))
    return []


_LIBRARY = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}


def _search(pattern: re.Pattern[bytes] | None, documented: Iterable[str], found: Iterable[Library]) -> set[str]:
    names: set[str] = set()
    for library in found:
        if pattern is not None:
            names |= {match.decode() for match in pattern.findall(library.content)}
        names |= {name for name in documented if name not in names and _has(library.content, name.encode())}
    return names


def _has(content: bytes, name: bytes) -> bool:
    """Whether the name ends a string, or all its eight-byte pieces occur as immediate operands do."""
    if name + b"\0" in content:
        return True
    pieces = [name[start : start + 8] for start in range(0, len(name) - len(name) % 8, 8)]
    return len(pieces) > 1 and all(piece in content for piece in pieces)
