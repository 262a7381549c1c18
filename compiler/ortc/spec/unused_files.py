"""Files of wheels that no program in an image loads."""

from __future__ import annotations

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
