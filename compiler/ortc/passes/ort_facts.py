"""Look at the ONNX Runtime of an environment, as a worker."""

from __future__ import annotations

import os

from ortc.execution.worker_protocol import Json, serve


def facts(_: Json) -> Json:
    """{} -> version, providers, and the version of CUDA that the package was built for, None without CUDA."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    cuda = getattr(ort, "cuda_version", None) or None
    return {"version": ort.__version__, "providers": ort.get_available_providers(), "cuda": cuda}


if __name__ == "__main__":
    serve({"facts": facts})
