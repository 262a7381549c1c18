"""Triton's gRPC client, unmodified, as a program: its requirements and the compiler's exclude each other.

Reads one JSON list a line, [method, arguments], and answers each with what the client gave, or with the status and
message of its exception.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def infer(client: Any, model: str, inputs: dict[str, Any], outputs: list[str] | None = None, **more: Any) -> Any:
    made = []
    for name, (datatype, values) in inputs.items():
        array = np.array(values, {"FP32": np.float32, "INT64": np.int64, "FP16": np.float16}[datatype])
        tensor = triton.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    asked = None if outputs is None else [triton.InferRequestedOutput(name) for name in outputs]
    result = client.infer(model, made, outputs=asked, **more)
    response = result.get_response()
    found = {output.name: result.as_numpy(output.name).tolist() for output in response.outputs}
    return {"id": response.id, "version": response.model_version, "outputs": found}


def answer(client: Any, method: str, arguments: dict[str, Any]) -> Any:
    try:
        if method == "infer":
            return infer(client, **arguments)
        called = getattr(client, method)
        return called(**arguments, **({"as_json": True} if method.startswith("get_") else {}))
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def main() -> None:
    with triton.InferenceServerClient(sys.argv[1]) as client:
        for line in sys.stdin:
            print(json.dumps(answer(client, *json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
