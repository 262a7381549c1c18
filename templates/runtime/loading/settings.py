"""What session.json may say: a bundle can come from a repository that others write to.

Options that read or write files, load libraries, take addresses or change what a process logs are not among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .placement import NAMED
from .providers import CPU, CUDA, OPENVINO, TENSORRT

SESSION_OPTIONS = frozenset(
    """
    graph_optimization_level execution_mode execution_order enable_mem_pattern enable_mem_reuse enable_cpu_mem_arena
    use_deterministic_compute
    """.split()  # noqa: SIM905
)
CONFIG_ENTRIES = frozenset(
    """
    mlas.enable_gemm_fastmath_arm64_bfloat16 optimization.disable_specified_optimizers
    optimization.enable_cast_chain_elimination optimization.enable_gelu_approximation
    session.allow_released_opsets_only session.disable_aot_function_inlining session.disable_cpu_ep_fallback
    session.disable_double_qdq_remover session.disable_prepacking session.disable_quant_qdq session.dynamic_block_base
    session.enable_quant_qdq_cleanup session.force_spinning_stop session.graph_optimizations_loop_level
    session.inter_op.allow_spinning session.intra_op.allow_spinning session.intra_op_thread_affinities
    session.qdq_matmulnbits_accuracy_level session.qdqisint8allowed session.set_denormal_as_zero
    session.strict_shape_type_inference session.use_env_allocators session.use_device_allocator_for_initializers
    session.x64quantprecision
    """.split()  # noqa: SIM905
)
PROVIDER_OPTIONS = {
    CPU: frozenset(("arena_extend_strategy",)),
    "AzureExecutionProvider": frozenset(),
    OPENVINO: frozenset(
        """
        device_type precision load_config num_streams num_of_threads model_priority disable_dynamic_shapes
        enable_qdq_optimizer
        """.split()  # noqa: SIM905
    ),
    CUDA: frozenset(
        """
        arena_extend_strategy device_id gpu_mem_limit cudnn_conv_algo_search do_copy_in_default_stream
        cudnn_conv_use_max_workspace cudnn_conv1d_pad_to_nc1d enable_cuda_graph tunable_op_enable
        tunable_op_tuning_enable tunable_op_max_tuning_duration_ms enable_skip_layer_norm_strict_mode prefer_nhwc
        use_ep_level_unified_stream use_tf32 fuse_conv_bias sdpa_kernel
        """.split()  # noqa: SIM905
    ),
    TENSORRT: frozenset(
        """
        device_id trt_max_workspace_size trt_max_partition_iterations trt_min_subgraph_size trt_fp16_enable
        trt_bf16_enable trt_int8_enable trt_engine_cache_enable trt_engine_cache_path trt_timing_cache_enable
        trt_timing_cache_path trt_force_timing_cache trt_cuda_graph_enable trt_force_sequential_engine_build
        trt_context_memory_sharing_enable trt_layer_norm_fp32_fallback trt_build_heuristics_enable trt_sparsity_enable
        trt_builder_optimization_level trt_auxiliary_streams trt_tactic_sources trt_profile_min_shapes
        trt_profile_max_shapes trt_profile_opt_shapes trt_op_types_to_exclude trt_engine_hw_compatible
        """.split()  # noqa: SIM905
    ),
}
OPENVINO_PROPERTIES = frozenset(
    """
    INFERENCE_PRECISION_HINT INFERENCE_NUM_THREADS PERFORMANCE_HINT EXECUTION_MODE_HINT NUM_STREAMS ENABLE_CPU_PINNING
    ENABLE_HYPER_THREADING SCHEDULING_CORE_TYPE MODEL_DISTRIBUTION_POLICY DYNAMIC_QUANTIZATION_GROUP_SIZE
    KV_CACHE_PRECISION CPU_RUNTIME_CACHE_CAPACITY CPU_DENORMALS_OPTIMIZATION
    """.split()  # noqa: SIM905
)
ENVIRONMENT = frozenset(
    """
    ORT_DISABLE_TELEMETRY OMP_NUM_THREADS OMP_WAIT_POLICY CUDA_MODULE_LOADING NVIDIA_TF32_OVERRIDE MALLOC_ARENA_MAX
    MALLOC_TRIM_THRESHOLD_ MALLOC_MMAP_THRESHOLD_ ONEDNN_PRIMITIVE_CACHE_CAPACITY
    """.split()  # noqa: SIM905
)
ENGINES = "/tmp/ortc-engines"  # noqa: S108  # the one place that session.json may name


def refuse_settings(config: Mapping[str, Any]) -> None:
    """Check that session.json says nothing but how to compute.

    Raises:
        ValueError: It holds an option, a property or a variable that is not on the lists above.
    """
    named = [
        ("session_options", config["session_options"], SESSION_OPTIONS),
        ("config_entries", config["config_entries"], CONFIG_ENTRIES),
        ("environment", config["environment"], ENVIRONMENT),
    ]
    for entry in config["providers"]:
        name, options = str(entry["name"]), entry["options"]
        # A provider that is not listed is refused with the session.
        named.append((f"the options of {name}", options, PROVIDER_OPTIONS.get(name, frozenset())))
        if name == OPENVINO:
            for device, properties in json.loads(options.get("load_config", "{}")).items():
                named.append((f"the properties of OpenVINO's {device!r}", properties, OPENVINO_PROPERTIES))
        paths = {key: value for key, value in options.items() if key.endswith("_path") and value != ENGINES}
        if paths:
            raise ValueError(f"{', '.join(map(repr, sorted(paths)))} of {name}: expected {ENGINES} and no other place")
    for where, given, allowed in named:
        other = sorted(str(name) for name in given if name not in allowed)
        if other:
            raise ValueError(f"{where} may not have {', '.join(map(repr, other[:NAMED]))}, which loaders refuse")
