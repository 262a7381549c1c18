"""Find the names that an ONNX Runtime binary compares its options with.

A name that the code compares with is a NUL-terminated string of the library, so a whole NUL-delimited string with a
known prefix is a key. Compilers hide some names: one that is the tail of a longer string, and one short enough to be
compared as immediate operands. Those are looked for by name, from the lists below.
"""

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Kind = dict[str, Any]

# onnxruntime_session_options_config_keys.h names its keys `[area].[sub-area].[name]`; these are the areas.
_SESSION_KEY = re.compile(rb"(?<=\0)((?:session|optimization|ep|mlas)\.[a-z0-9_.]*[a-z0-9])(?=\0)")
_AREA = re.compile(r"(?:session|optimization|ep|mlas)\.")
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

# What the provider's parser in onnxruntime-gpu 1.31.1 takes: every string of the library was offered to it as an option
# name, then values of each kind; it refuses other names. Kinds are those of the parser, values are always given as
# strings. https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html documents most of them.
_SWITCH: Kind = {"kind": "bool", "values": ["0", "1", "False", "True", "false", "true"]}
_INT: Kind = {"kind": "int"}
_TEXT: Kind = {"kind": "str"}
_CUDA_OPTIONS: dict[str, Kind] = {
    "arena_extend_strategy": {"kind": "enum", "values": ["kNextPowerOfTwo", "kSameAsRequested"]},
    "cudnn_conv1d_pad_to_nc1d": _SWITCH,
    "cudnn_conv_algo_search": {"kind": "enum", "values": ["DEFAULT", "EXHAUSTIVE", "HEURISTIC"]},
    "cudnn_conv_use_max_workspace": _SWITCH,
    "device_id": _INT,
    "do_copy_in_default_stream": _SWITCH,
    "enable_cuda_graph": _SWITCH,
    "enable_cudnn": _SWITCH,
    "enable_skip_layer_norm_strict_mode": _SWITCH,
    "external_data_loader_reading_threads": _INT,
    "fuse_conv_bias": _SWITCH,
    "gpu_external_alloc": _INT,
    "gpu_external_empty_cache": _INT,
    "gpu_external_free": _INT,
    "gpu_mem_limit": _INT,
    "has_user_compute_stream": _SWITCH,
    "prefer_nhwc": _SWITCH,
    "sdpa_kernel": _INT,
    "tunable_op_enable": _SWITCH,
    "tunable_op_max_tuning_duration_ms": _INT,
    "tunable_op_tuning_enable": _SWITCH,
    "use_ep_level_unified_stream": _SWITCH,
    "use_tf32": _SWITCH,
    "user_compute_stream": _INT,
}

# TensorRT's options are parsed by the Python binding, not by the provider: `1` and `0` are no switches there, and five
# options of the C API are refused.
_WORD_SWITCH: Kind = {"kind": "bool", "values": ["False", "True", "false", "true"]}
_TENSORRT_OPTIONS: dict[str, Kind] = {
    "device_id": _INT,
    "trt_auxiliary_streams": _INT,
    "trt_bf16_enable": _WORD_SWITCH,
    "trt_build_heuristics_enable": _WORD_SWITCH,
    "trt_builder_optimization_level": _INT,
    "trt_context_memory_sharing_enable": _WORD_SWITCH,
    "trt_cuda_graph_enable": _WORD_SWITCH,
    "trt_detailed_build_log": _WORD_SWITCH,
    "trt_dla_core": _INT,
    "trt_dla_enable": _WORD_SWITCH,
    "trt_dump_ep_context_model": _WORD_SWITCH,
    "trt_dump_subgraphs": _WORD_SWITCH,
    "trt_engine_cache_enable": _WORD_SWITCH,
    "trt_engine_cache_path": _TEXT,
    "trt_engine_cache_prefix": _TEXT,
    "trt_engine_decryption_enable": _WORD_SWITCH,
    "trt_engine_decryption_lib_path": _TEXT,
    "trt_engine_hw_compatible": _WORD_SWITCH,
    "trt_ep_context_embed_mode": _INT,
    "trt_ep_context_file_path": _TEXT,
    "trt_extra_plugin_lib_paths": _TEXT,
    "trt_force_sequential_engine_build": _WORD_SWITCH,
    "trt_force_timing_cache": _WORD_SWITCH,
    "trt_fp16_enable": _WORD_SWITCH,
    "trt_int8_calibration_table_name": _TEXT,
    "trt_int8_enable": _WORD_SWITCH,
    "trt_int8_use_native_calibration_table": _WORD_SWITCH,
    "trt_layer_norm_fp32_fallback": _WORD_SWITCH,
    "trt_max_partition_iterations": _INT,
    "trt_max_workspace_size": _INT,
    "trt_min_subgraph_size": _INT,
    "trt_onnx_model_folder_path": _TEXT,
    "trt_op_types_to_exclude": _TEXT,
    "trt_preview_features": _TEXT,
    "trt_profile_max_shapes": _TEXT,
    "trt_profile_min_shapes": _TEXT,
    "trt_profile_opt_shapes": _TEXT,
    "trt_sparsity_enable": _WORD_SWITCH,
    "trt_tactic_sources": _TEXT,
    "trt_timing_cache_enable": _WORD_SWITCH,
    "trt_timing_cache_path": _TEXT,
    "trt_weight_stripped_engine_enable": _WORD_SWITCH,
    "user_compute_stream": _INT,
}
_REFUSED_TENSORRT_OPTIONS = {
    "trt_external_data_bytestream",
    "trt_external_data_bytestream_size",
    "trt_load_user_initializer",
    "trt_onnx_bytestream",
    "trt_onnx_bytestream_size",
}

# What the Python binding of onnxruntime-openvino 1.24.1 takes, found as CUDA's were. Another name is refused; a value
# that the provider cannot parse gives a session without it. `context` is left out: it is a pointer of the running
# process. `load_config` is JSON: a device, then that device's OpenVINO properties.
_OPENVINO_OPTIONS: dict[str, Kind] = {
    "cache_dir": _TEXT,
    "device_id": _TEXT,
    "device_luid": _TEXT,
    "device_type": _TEXT,
    "disable_dynamic_shapes": _WORD_SWITCH,
    "enable_causallm": _WORD_SWITCH,
    "enable_opencl_throttling": _WORD_SWITCH,
    "enable_qdq_optimizer": _WORD_SWITCH,
    "layout": _TEXT,
    "load_config": _TEXT,
    "model_priority": {"kind": "enum", "values": ["DEFAULT", "HIGH", "LOW", "MEDIUM"]},
    "num_of_threads": _INT,
    "num_streams": _INT,
    "precision": {"kind": "enum", "values": ["ACCURACY", "FP16", "FP32"]},
    "reshape_input": _TEXT,
}


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
    # Two neighbouring constants without a NUL between them are no key: `session.use_memorysession.use_ort`.
    whole = [key for key in keys if len(_AREA.findall(key)) == 1]
    return sorted(key for key in whole if not key.startswith(_INTERNAL_KEYS))


def run_keys(found: Iterable[Library]) -> list[str]:
    """Run configuration keys that these libraries know."""
    return sorted(_search(_RUN_KEY, _DOCUMENTED_RUN_KEYS, found))


def provider_options(provider: str, found: Iterable[Library]) -> dict[str, Kind]:
    """Options of an execution provider that these libraries know; none for those that ignore what they are given.

    Raises:
        SystemExit: a library has an option that the tables above lack.
    """
    found = tuple(found)
    if provider == "CUDAExecutionProvider":
        own = [library for library in found if library.file == "libonnxruntime_providers_cuda.so"]
        return {name: _CUDA_OPTIONS[name] for name in _search(None, _CUDA_OPTIONS, own)}
    if provider == "TensorrtExecutionProvider":
        own = [library for library in found if library.file.startswith("onnxruntime_pybind11_state")]
        names = _search(_TENSORRT_OPTION, _TENSORRT_OPTIONS, own) - _REFUSED_TENSORRT_OPTIONS
        if unknown := sorted(names - _TENSORRT_OPTIONS.keys()):
            raise SystemExit(f"unknown TensorRT options {unknown}: find their kinds, and add them to _TENSORRT_OPTIONS")
        return {name: _TENSORRT_OPTIONS[name] for name in names}
    if provider == "OpenVINOExecutionProvider":
        own = [library for library in found if library.file.startswith("onnxruntime_pybind11_state")]
        return {name: _OPENVINO_OPTIONS[name] for name in _search(None, _OPENVINO_OPTIONS, own)}
    return {}


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
