"""Execution providers: their names, and the options that they get on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def provider_options(name: str, options: Mapping[str, Any], threads: int, requests: int = 1) -> dict[str, Any]:
    """The options of a provider as session.json has them; for OpenVINO on the CPU with the thread policy in them.

    OpenVINO has threads of its own, one for every core of the affinity: it knows nothing of a CPU quota, nor of
    intra_op_num_threads. It binds them to the first cores, so that two processes of one thread each run at half speed
    on one core; here they are not bound unless session.json says so. `load_config` outweighs `num_of_threads`. They
    serve one request after the other, however many callers there are, unless they are parted into streams.

    Raises:
        ValueError: The options set the number of threads themselves, or hold what OpenVINO would ignore.
    """
    given, device = dict(options), options.get("device_type", "CPU")
    if name != OPENVINO or "CPU" not in device:
        return given
    devices = json.loads(given.get("load_config", "{}"))
    if device != "CPU" or devices.keys() - {"CPU"}:
        raise ValueError(f"{name}: expected the device CPU and no other, found {device}, {', '.join(devices)}")
    properties = dict(devices.get("CPU", {}))
    if "num_of_threads" in given or "INFERENCE_NUM_THREADS" in properties:
        raise ValueError(f"{name}: the options set a number of threads, which is for threads.intra_op to say")
    # It takes any other text for no hint.
    hint = properties.get("INFERENCE_PRECISION_HINT", "f32")
    if hint not in ("bf16", "f16", "f32"):
        raise ValueError(f"{name}: INFERENCE_PRECISION_HINT is {hint!r}, expected bf16, f16 or f32")
    streams = {"NUM_STREAMS": str(requests)} if requests > 1 else {}
    properties = {"ENABLE_CPU_PINNING": "NO", **streams, **properties, "INFERENCE_NUM_THREADS": str(threads * requests)}
    return given | {"device_type": device, "load_config": json.dumps({"CPU": properties})}
